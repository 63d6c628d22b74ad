//! What must hold of headers, indexes and signatures that are accepted; see [`crate::fuzz`].

use safetensors::{SafeTensors, tensor::Metadata};

use super::{Structure, read_index, safetensors as ours, signature};
use crate::model::{RelPath, text};

/// `data` is a whole file. What is called valid is valid for the reference implementation too, and
/// the other way round but for names that come twice, which it does not see.
pub fn safetensors(data: &[u8]) {
    let Some((length, rest)) = data.split_at_checked(8) else { return };
    let length = u64::from_le_bytes(length.try_into().expect("eight bytes"));
    let Some((header, tensors)) =
        usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length))
    else {
        return;
    };
    let structure = ours::check_header(header, tensors.len() as u64, &mut ours::Tensors::new());
    let reference = SafeTensors::deserialize(data);
    match structure {
        Structure::Valid => assert!(reference.is_ok(), "{:?}", reference.err()),
        Structure::Invalid(why) => {
            assert!(!why.chars().any(crate::model::text::is_control), "{why:?}");
            assert!(reference.is_err() || has_names_twice(header), "{why}");
        }
        Structure::Unchecked(_) => {
            assert!(serde_json::from_slice::<Metadata>(header).is_err());
        }
    }
}

fn has_names_twice(header: &[u8]) -> bool {
    struct Names(Vec<String>);
    impl<'de> serde::de::Visitor<'de> for Names {
        type Value = Vec<String>;

        fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            out.write_str("a map")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(
            mut self,
            mut map: A,
        ) -> Result<Vec<String>, A::Error> {
            while let Some((name, _)) = map.next_entry::<String, serde::de::IgnoredAny>()? {
                self.0.push(name);
            }
            Ok(self.0)
        }
    }
    let mut json = serde_json::Deserializer::from_slice(header);
    let names = serde::Deserializer::deserialize_map(&mut json, Names(Vec::new()));
    let mut names = names.unwrap_or_default();
    names.sort();
    names.windows(2).any(|pair| pair[0] == pair[1])
}

pub fn index(data: &[u8]) {
    let path = RelPath::parse("d/model.safetensors.index.json").expect("a plain name");
    let mut asked = 0_usize;
    let known = read_index(data, &path, |shard| {
        let shard = shard?;
        asked += 1;
        let path = RelPath::parse(shard).expect("only safe names are looked for");
        crate::model::fuzz::assert_safe(&path);
        assert!(shard.starts_with("d/"), "{shard}");
        Ok(!shard.contains('0'))
    });
    match known {
        Ok(known) => assert!(known.len() <= asked && known.iter().all(|it| !it.contains('0'))),
        Err(problem) => drop(problem.to_string()),
    }
}

/// `data` is a signature, or what one has signed, or a certificate: none of it is believed before it is read.
pub fn model_signature(data: &[u8]) {
    signature::read_everything(data, &mut |problem| {
        let told = problem.to_string();
        assert!(!told.chars().any(text::is_control), "{told:?}");
    });
}
