//! SHA-256 by the faster of two implementations: with instructions for it in the processor both are alike, and
//! `sha2` is used; without them (Intel before Ice Lake) aws-lc, whose vector code is a third faster than what `sha2` has.

use aws_lc_rs::digest::{Context, SHA256};
use sha2::{Digest as _, Sha256 as Sha2};

/// A running hash.
pub enum Sha256 {
    Sha2(Sha2),
    AwsLc(Box<Context>),
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new(has_instructions())
    }
}

impl Sha256 {
    fn new(has_instructions: bool) -> Self {
        if has_instructions {
            Self::Sha2(Sha2::new())
        } else {
            Self::AwsLc(Box::new(Context::new(&SHA256)))
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha2(hash) => hash.update(bytes),
            Self::AwsLc(hash) => hash.update(bytes),
        }
    }

    pub fn finish(self) -> [u8; 32] {
        match self {
            Self::Sha2(hash) => hash.finalize().into(),
            Self::AwsLc(hash) => {
                let mut digest = [0; 32];
                digest.copy_from_slice(hash.finish().as_ref());
                digest
            }
        }
    }
}

/// Those that `sha2` uses where it finds them.
#[cfg(target_arch = "x86_64")]
fn has_instructions() -> bool {
    std::arch::is_x86_feature_detected!("sha")
        && std::arch::is_x86_feature_detected!("ssse3")
        && std::arch::is_x86_feature_detected!("sse4.1")
}

#[cfg(target_arch = "aarch64")]
fn has_instructions() -> bool {
    std::arch::is_aarch64_feature_detected!("sha2")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_instructions() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hex;

    #[test]
    fn both_have_the_same_digest_however_the_bytes_are_cut() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n * 7 / 3) as u8).collect();
        for has_instructions in [true, false] {
            let digest = |cut: usize| {
                let mut hash = Sha256::new(has_instructions);
                bytes.chunks(cut).for_each(|piece| hash.update(piece));
                hash.finish()
            };
            let expected: [u8; 32] = Sha2::digest(&bytes).into();
            assert!([1, 63, 64, 65, 4_096, 100_000].iter().all(|cut| digest(*cut) == expected));
            // FIPS 180-4.
            let mut abc = Sha256::new(has_instructions);
            abc.update(b"abc");
            assert_eq!(
                hex::encode(&abc.finish()),
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
            );
        }
    }
}
