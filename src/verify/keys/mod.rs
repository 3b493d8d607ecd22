//! Keys: shared secrets and their digests, public keys and their signatures, certificates, signed tokens.

pub(crate) mod certificate;
pub(crate) mod der;
pub(crate) mod jwt;
pub(crate) mod mac;
pub(crate) mod pair;
pub(crate) mod pinned_url;
pub(crate) mod public;
mod rsa_pair;
pub(crate) mod secret_encoding;
