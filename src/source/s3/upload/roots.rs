//! Answers whose outermost element has another name than S3 gives it: some stores call `ListPartsResult`
//! `ListPartsResponse`, and the SDK reads nothing else then.

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextMut;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;

/// Gives the outermost element the name that S3 has for it.
#[derive(Clone, Copy, Debug)]
pub struct Roots;

impl Intercept for Roots {
    fn name(&self) -> &'static str {
        "Roots"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        let body = response.body().bytes().unwrap_or_default();
        if response.status().is_success()
            && let Some(renamed) = std::str::from_utf8(body).ok().and_then(renamed)
        {
            *response.body_mut() = SdkBody::from(renamed);
        }
        Ok(())
    }
}

fn renamed(xml: &str) -> Option<String> {
    let names = ["ListParts", "CompleteMultipartUpload", "InitiateMultipartUpload"];
    let name = names.into_iter().find(|name| xml.contains(&format!("</{name}Response>")))?;
    let (found, meant) = (format!("{name}Response"), format!("{name}Result"));
    let opened = xml.replacen(&format!("<{found}"), &format!("<{meant}"), 1);
    Some(opened.replacen(&format!("</{found}>"), &format!("</{meant}>"), 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_outermost_element_is_renamed() {
        let list = "<?xml?><ListPartsResponse xmlns=\"x\"><Key>a</Key></ListPartsResponse>";
        let expected = "<?xml?><ListPartsResult xmlns=\"x\"><Key>a</Key></ListPartsResult>";
        assert_eq!(renamed(list).as_deref(), Some(expected));
        for other in [expected, "", "<ListPartsResponse>", "<Error/>"] {
            assert_eq!(renamed(other), None, "{other}");
        }
    }
}
