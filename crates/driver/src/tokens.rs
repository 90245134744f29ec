//! A map whose keys are tokens.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::completion::Token;

/// Spreads the bits of a token. Tokens are unique numbers already, so they need no other hashing.
#[derive(Default)]
pub(crate) struct TokenHasher(u64);

impl Hasher for TokenHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0.rotate_left(8) ^ u64::from(*byte));
        }
    }
    fn write_u64(&mut self, token: u64) {
        self.0 = token.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(20);
    }
}

pub(crate) type TokenMap<V> = HashMap<Token, V, BuildHasherDefault<TokenHasher>>;
