//! Keys: shared secrets and their digests, public keys and their signatures, certificates, signed tokens.

pub(crate) mod certificate;
pub(crate) mod der;
pub(crate) mod jwt;
pub(crate) mod mac;
pub(crate) mod pair;
pub(crate) mod public;
