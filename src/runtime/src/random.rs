//! Randomness: the operating system's, or a stream that a seed decides.

use std::{convert::Infallible, sync::Arc};

use parking_lot::Mutex;
use rand::{Rng, RngExt, SeedableRng, TryCryptoRng, TryRng, distr::Alphanumeric};
use rand_chacha::ChaCha20Rng;

/// A cryptographic source of random numbers that many may share; clones draw from the same stream.
///
/// It is a [`rand::CryptoRng`] too, for the libraries that ask for one.
#[derive(Clone, Debug)]
pub struct Random(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Seeded(Arc<Mutex<ChaCha20Rng>>),
}

impl Random {
    pub(crate) fn system() -> Self {
        Self(Source::System)
    }

    pub(crate) fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(Arc::new(Mutex::new(
            ChaCha20Rng::seed_from_u64(seed),
        ))))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the operating system"
    )]
    fn draw<T>(&self, from: impl FnOnce(&mut dyn Rng) -> T) -> T {
        match &self.0 {
            Source::System => from(&mut rand::rng()),
            Source::Seeded(stream) => from(&mut *stream.lock()),
        }
    }

    /// Fills `bytes`.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.draw(|rng| rng.fill_bytes(bytes));
    }

    /// `N` random bytes: a key, a salt, a nonce.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A random number out of all of `u64`.
    pub fn u64(&self) -> u64 {
        self.draw(|rng| rng.next_u64())
    }

    /// A number in `0..bound`, each as likely as the other; 0 when `bound` is 0.
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        self.draw(|rng| rng.random_range(0..bound))
    }

    /// `length` characters out of `[A-Za-z0-9]`, 5.95 bits each: session ids, tokens, generated names.
    pub fn alphanumeric(&self, length: usize) -> String {
        self.draw(|rng| {
            (0..length)
                .map(|_| char::from(rng.sample(Alphanumeric)))
                .collect()
        })
    }
}

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.draw(|rng| rng.next_u32()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.fill(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Random {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_one_stream() {
        let (one, same) = (Random::seeded(3), Random::seeded(3));
        let clone = one.clone();
        let split = [one.u64(), clone.u64(), one.u64()];
        assert_eq!(split, [same.u64(), same.u64(), same.u64()]);
    }

    #[test]
    fn system_randomness_does_not_repeat() {
        let random = Random::system();
        assert_ne!(random.bytes::<32>(), random.bytes::<32>());
    }

    #[test]
    fn bounds_and_alphabet_hold() {
        let random = Random::seeded(1);
        assert_eq!(random.below(0), 0);
        assert!((0..1_000).all(|_| random.below(3) < 3));
        let name = random.alphanumeric(64);
        assert_eq!(name.len(), 64);
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
}
