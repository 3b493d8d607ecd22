//! RSA key pair for trying out: made from random primes, with both paddings of RFC 8017.
//!
//! A signature takes a time that depends on the key. So nothing that comes in is judged with these keys.

use num_bigint::BigUint;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::mac::{Algorithm, RunningDigest};

/// The numbers of an RSA key.
pub(super) struct RsaPair {
    pub(super) n: BigUint,
    pub(super) e: BigUint,
    pub(super) d: BigUint,
    pub(super) p: BigUint,
    pub(super) q: BigUint,
}

/// Bits of each of the two primes of an RSA key.
const PRIME_BITS: u32 = 1024;

impl RsaPair {
    /// Makes a key of 2048 bits.
    pub(super) fn make() -> Result<Self, String> {
        let e = BigUint::from(65_537_u32);
        let one = BigUint::from(1_u8);
        loop {
            let (p, q) = (prime()?, prime()?);
            let n = &p * &q;
            let phi = (&p - &one) * (&q - &one);
            if let (true, Some(d)) = (
                n.bits() == u64::from(2 * PRIME_BITS) && p != q,
                e.modinv(&phi),
            ) {
                return Ok(Self { n, e, d, p, q });
            }
        }
    }

    /// The signature of an encoded message.
    fn power(&self, encoded: &[u8]) -> Vec<u8> {
        let power = BigUint::from_bytes_be(encoded)
            .modpow(&self.d, &self.n)
            .to_bytes_be();
        let size = self.n.bits().div_ceil(8) as usize;
        [vec![0; size.saturating_sub(power.len())], power].concat()
    }

    /// Signs with the padding of PKCS #1, version 1.5 (RFC 8017, 9.2).
    pub(super) fn sign_pkcs1(
        &self,
        algorithm: Algorithm,
        message: &[u8],
    ) -> Result<Vec<u8>, String> {
        let info = digest_info(algorithm).ok_or("RSA does not sign such a digest")?;
        let text = [info, &digest(algorithm, &[message])].concat();
        let size = self.n.bits().div_ceil(8) as usize;
        let padding = size
            .checked_sub(text.len() + 3)
            .ok_or("the key is too short")?;
        Ok(self.power(&[&[0, 1][..], &vec![0xff; padding], &[0], &text].concat()))
    }

    /// Signs with the padding EMSA-PSS (RFC 8017, 9.1.1) and a salt as long as the digest.
    pub(super) fn sign_pss(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, String> {
        let hashed = digest(algorithm, &[message]);
        let salt = &random::<64>()?[..hashed.len()];
        let size = self.n.bits().div_ceil(8) as usize;
        let mixed = digest(algorithm, &[&[0; 8], &hashed, salt]);
        let room = size
            .checked_sub(2 * hashed.len() + 2)
            .ok_or("the key is too short")?;
        let mut block = [vec![0; room], vec![1], salt.to_vec()].concat();
        for (number, chunk) in block.chunks_mut(hashed.len()).enumerate() {
            let number = u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
            let mask = digest(algorithm, &[&mixed, &number]);
            chunk
                .iter_mut()
                .zip(mask)
                .for_each(|(byte, mask)| *byte ^= mask);
        }
        block[0] &= 0x7f;
        Ok(self.power(&[block, mixed, vec![0xbc]].concat()))
    }
}

/// A random prime with its two highest bits set, so that two of them make a number of full length.
fn prime() -> Result<BigUint, String> {
    let small: Vec<u32> = (3..2_000_u32)
        .filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0))
        .collect();
    let one = BigUint::from(1_u8);
    'candidates: loop {
        let mut bytes = random::<{ PRIME_BITS as usize / 8 }>()?;
        bytes[0] |= 0xc0;
        bytes[PRIME_BITS as usize / 8 - 1] |= 1;
        let candidate = BigUint::from_bytes_be(&bytes);
        if small.iter().any(|d| &candidate % d == BigUint::ZERO) {
            continue;
        }
        // Miller and Rabin. For random numbers of this size a few rounds leave less doubt than the machine does.
        let below = &candidate - &one;
        let twos = below.trailing_zeros().unwrap_or(0);
        let odd = &below >> twos;
        for _ in 0..16 {
            let base = BigUint::from_bytes_be(&random::<64>()?) + 2_u8;
            let mut power = base.modpow(&odd, &candidate);
            if power == one || power == below {
                continue;
            }
            let mut rounds = 1;
            while power != below {
                if rounds >= twos {
                    continue 'candidates;
                }
                power = &power * &power % &candidate;
                rounds += 1;
            }
        }
        return Ok(candidate);
    }
}

/// Random bytes of the operating system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| "the operating system gives no random numbers".to_owned())?;
    Ok(bytes)
}

/// The digest of several pieces, one after the other.
pub(super) fn digest(algorithm: Algorithm, pieces: &[&[u8]]) -> Vec<u8> {
    let mut digest = RunningDigest::plain(algorithm);
    pieces.iter().for_each(|piece| digest.take(piece));
    digest.finish().as_bytes().to_vec()
}

/// Prefix of a digest in an RSA signature (RFC 8017, 9.2).
fn digest_info(algorithm: Algorithm) -> Option<&'static [u8]> {
    Some(match algorithm {
        Algorithm::Sha1 => &[
            0x30, 0x21, 0x30, 0x09, 6, 5, 0x2b, 0x0e, 3, 2, 0x1a, 5, 0, 4, 0x14,
        ],
        Algorithm::Sha256 => &[
            0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20,
        ],
        Algorithm::Sha384 => &[
            0x30, 0x41, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2, 5, 0, 4, 0x30,
        ],
        Algorithm::Sha512 => &[
            0x30, 0x51, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3, 5, 0, 4, 0x40,
        ],
        Algorithm::Md5 => return None,
    })
}
