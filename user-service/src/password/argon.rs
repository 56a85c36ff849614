//! One Argon2id run, in memory that is used again. Invariant: as many buffers exist as runs ever went on at once; the
//! system's allocator would keep one for each thread of the blocking pool, 19 MiB each.

use argon2::password_hash::{Error, Output, ParamsString, PasswordHash, SaltString};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version};
use parking_lot::Mutex;

use super::PasswordError;

/// Argon2id with 19 MiB, two passes and one lane: OWASP's first recommendation.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const HASH_BYTES: usize = 32;
const SALT_BYTES: usize = 16;

/// Buffers that rest between two runs.
#[derive(Default)]
pub(super) struct Memory(Mutex<Buffers>);

#[derive(Default)]
struct Buffers {
    free: Vec<Vec<Block>>,
    /// Since somebody last looked.
    used: bool,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Memory").field(&self.0.lock().free.len()).finish()
    }
}

impl Memory {
    /// Lets go of the buffers if none was used since this was last called.
    pub(super) fn rest(&self) {
        let mut buffers = self.0.lock();
        if !std::mem::take(&mut buffers.used) {
            buffers.free = Vec::new();
        }
    }

    /// The PHC string of a password, with a salt of its own.
    pub(super) fn hash(&self, password: &[u8]) -> Result<String, PasswordError> {
        let mut salt = [0; SALT_BYTES];
        aws_lc_rs::rand::fill(&mut salt)?;
        let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(Error::from)?;
        let params_string = ParamsString::try_from(&params)?;
        let mut hash = [0; HASH_BYTES];
        self.run(Algorithm::Argon2id, Version::V0x13, params, password, &salt, &mut hash)?;
        let salt = SaltString::encode_b64(&salt)?;
        let phc = PasswordHash {
            algorithm: ARGON2ID_IDENT,
            version: Some(Version::V0x13.into()),
            params: params_string,
            salt: Some(salt.as_salt()),
            hash: Some(Output::new(&hash)?),
        };
        Ok(phc.to_string())
    }

    /// Whether `password` is the one behind `phc`. The parameters are those of the stored hash, so hashes outlive a
    /// change of the constants above.
    pub(super) fn verify(&self, phc: &str, password: &[u8]) -> Result<bool, PasswordError> {
        let stored = PasswordHash::new(phc)?;
        let (Some(salt), Some(expected)) = (stored.salt, stored.hash) else {
            return Err(Error::PhcStringField.into());
        };
        let algorithm = Algorithm::try_from(stored.algorithm)?;
        let version = stored.version.map_or(Ok(Version::V0x13), Version::try_from).map_err(Error::from)?;
        let params = Params::try_from(&stored)?;
        let mut bytes = [0; 64];
        let salt = salt.decode_b64(&mut bytes)?;
        let mut hash = vec![0; expected.len()];
        self.run(algorithm, version, params, password, salt, &mut hash)?;
        // In constant time: that is how outputs compare.
        Ok(Output::new(&hash)? == expected)
    }

    fn run(
        &self,
        algorithm: Algorithm,
        version: Version,
        params: Params,
        password: &[u8],
        salt: &[u8],
        hash: &mut [u8],
    ) -> Result<(), PasswordError> {
        let mut blocks = self.0.lock().free.pop().unwrap_or_default();
        if blocks.len() < params.block_count() {
            blocks.resize(params.block_count(), Block::default());
        }
        let done = Argon2::new(algorithm, version, params).hash_password_into_with_memory(
            password,
            salt,
            hash,
            &mut blocks,
        );
        let mut buffers = self.0.lock();
        buffers.free.push(blocks);
        buffers.used = true;
        drop(buffers);
        done.map_err(|error| Error::from(error).into())
    }
}

#[cfg(test)]
mod tests {
    use argon2::PasswordVerifier;

    use super::*;

    #[test]
    fn memory_that_was_used_changes_no_result() {
        let memory = Memory::default();
        let first = memory.hash(b"correct horse").unwrap();
        let second = memory.hash(b"another horse").unwrap();
        assert!(memory.verify(&first, b"correct horse").unwrap());
        assert!(!memory.verify(&first, b"another horse").unwrap());
        assert!(memory.verify(&second, b"another horse").unwrap());
        assert_eq!(memory.0.lock().free.len(), 1, "one run at a time needs one buffer");
        memory.rest();
        assert_eq!(memory.0.lock().free.len(), 1, "it was used a moment ago");
        memory.rest();
        assert_eq!(memory.0.lock().free.len(), 0, "nobody needs it");
        assert!(memory.verify(&first, b"correct horse").unwrap());
    }

    /// The library's own check, with memory of its own, agrees.
    #[test]
    fn hashes_are_plain_phc_strings() {
        let phc = Memory::default().hash(b"correct horse").unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        let parsed = PasswordHash::new(&phc).unwrap();
        assert!(Argon2::default().verify_password(b"correct horse", &parsed).is_ok());
        assert!(Argon2::default().verify_password(b"correct hors", &parsed).is_err());
    }

    #[test]
    fn hashes_with_other_parameters_still_verify() {
        let phc = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        let memory = Memory::default();
        assert!(memory.verify(phc, b"password").unwrap());
        assert!(!memory.verify(phc, b"Password").unwrap());
        assert!(memory.verify("no hash", b"password").is_err());
    }
}
