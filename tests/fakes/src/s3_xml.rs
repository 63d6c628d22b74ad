//! XML as S3 writes it, errors included.

use crate::http::Response;

/// An element under construction; text is escaped as it goes in.
pub(crate) struct Element {
    name: String,
    namespace: bool,
    inner: String,
}

/// An error with the code S3 has for it.
pub(crate) struct S3Error {
    status: u16,
    code: &'static str,
    message: String,
    /// Further elements: name and text.
    details: Vec<(&'static str, String)>,
}

impl Element {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), namespace: false, inner: String::new() }
    }

    /// The outermost one.
    pub fn root(name: &str) -> Self {
        Self { namespace: true, ..Self::new(name) }
    }

    pub fn text(self, name: &str, text: &str) -> Self {
        self.child(Self::new(name).content(text))
    }

    pub fn child(mut self, child: Self) -> Self {
        self.inner += &child.spelled();
        self
    }

    pub fn content(mut self, text: &str) -> Self {
        self.inner += &escape(text);
        self
    }

    pub fn into_response(self, status: u16) -> Response {
        let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}", self.spelled());
        Response::new(status).header("Content-Type", "application/xml").body(body)
    }

    fn spelled(&self) -> String {
        let namespace =
            if self.namespace { " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"" } else { "" };
        format!("<{0}{namespace}>{1}</{0}>", self.name, self.inner)
    }
}

impl S3Error {
    pub fn new(status: u16, code: &'static str, message: &str) -> Self {
        Self { status, code, message: message.to_owned(), details: Vec::new() }
    }

    pub fn access_denied() -> Self {
        Self::new(403, "AccessDenied", "Access Denied")
    }

    pub fn no_such_bucket() -> Self {
        Self::new(404, "NoSuchBucket", "The specified bucket does not exist")
    }

    pub fn no_such_key() -> Self {
        Self::new(404, "NoSuchKey", "The specified key does not exist.")
    }

    pub fn no_such_version() -> Self {
        Self::new(404, "NoSuchVersion", "The specified version does not exist.")
    }

    pub fn precondition_failed() -> Self {
        let message = "At least one of the pre-conditions you specified did not hold";
        Self::new(412, "PreconditionFailed", message).with("Condition", "If-Match")
    }

    pub fn invalid_part() -> Self {
        Self::new(416, "InvalidPartNumber", "The requested partnumber is not satisfiable")
    }

    pub fn invalid_range(size: u64) -> Self {
        Self::new(416, "InvalidRange", "The requested range is not satisfiable")
            .with("ActualObjectSize", &size.to_string())
    }

    pub fn invalid_object_state() -> Self {
        let message = "The operation is not valid for the object's storage class";
        Self::new(403, "InvalidObjectState", message)
    }

    pub fn wrong_region(bucket: &str) -> Self {
        let message = "The bucket you are attempting to access must be addressed using the \
                       specified endpoint. Please send all future requests to this endpoint.";
        Self::new(301, "PermanentRedirect", message).with("Bucket", bucket)
    }

    pub fn with(mut self, name: &'static str, text: &str) -> Self {
        self.details.push((name, text.to_owned()));
        self
    }

    pub fn into_response(self, resource: &str) -> Response {
        let mut error =
            Element::new("Error").text("Code", self.code).text("Message", &self.message);
        for (name, text) in &self.details {
            error = error.text(name, text);
        }
        error
            .text("Resource", resource)
            .text("RequestId", "FAKE0REQUEST0ID0")
            .text("HostId", "ZmFrZQ==")
            .into_response(self.status)
    }
}

/// Control characters have no place in XML 1.0 but S3 writes references to them all the same.
fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |escaped, c| match c {
        '&' => escaped + "&amp;",
        '<' => escaped + "&lt;",
        '>' => escaped + "&gt;",
        '"' => escaped + "&quot;",
        c if c.is_control() => escaped + &format!("&#x{:x};", u32::from(c)),
        c => {
            let mut escaped = escaped;
            escaped.push(c);
            escaped
        }
    })
}
