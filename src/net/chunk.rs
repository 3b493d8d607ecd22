//! A chunked body, followed byte by byte (RFC 9112, 7.1): where it ends, and whether every line of it is as it must be.
//! Nothing of it is kept.

/// Extensions and trailers of one body at most, in bytes.
const MAX_EXTRA: u32 = 16 * 1024;

/// Progress of a chunked body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunks {
    at: ChunkState,
    /// Remaining bytes of the chunk, or the size read so far.
    size: u64,
    digits: u8,
    extra: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    LastLf,
    End,
}

impl Chunks {
    pub(super) const fn new() -> Self {
        Self {
            at: ChunkState::Size,
            size: 0,
            digits: 0,
            extra: 0,
        }
    }

    /// True at the end of the body.
    pub(super) fn ended(&self) -> bool {
        self.at == ChunkState::End
    }

    /// Follows further bytes, at most to the body's end; says how many of them belong to it. In the case of an error,
    /// says how many were good, and what is wrong with the next.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<usize, (usize, &'static str)> {
        let mut at = 0;
        while at < bytes.len() && self.at != ChunkState::End {
            if self.at == ChunkState::Data {
                let here = usize::try_from(self.size)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len() - at);
                at += here;
                self.size -= here as u64;
                if self.size == 0 {
                    self.at = ChunkState::DataCr;
                }
                continue;
            }
            self.step(bytes[at]).map_err(|what| (at, what))?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<(), &'static str> {
        self.at = match (self.at, byte) {
            (ChunkState::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if self.digits == 16 {
                    return Err("a chunk's size has more than 16 digits");
                }
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                self.size = (self.size << 4) | u64::from(digit);
                self.digits += 1;
                ChunkState::Size
            }
            (ChunkState::Size, _) if self.digits == 0 => return Err("a chunk has no size"),
            (ChunkState::Size, b';') => ChunkState::Extension,
            (ChunkState::Size | ChunkState::Extension, b'\r') => ChunkState::SizeLf,
            (ChunkState::Size, _) => return Err("a chunk's size is no number"),
            (ChunkState::SizeLf, b'\n') => {
                self.digits = 0;
                if self.size == 0 {
                    ChunkState::TrailerStart
                } else {
                    ChunkState::Data
                }
            }
            (ChunkState::DataCr, b'\r') => ChunkState::DataLf,
            (ChunkState::DataLf, b'\n') => ChunkState::Size,
            (ChunkState::DataCr | ChunkState::DataLf, _) => {
                return Err("a chunk is longer than its size");
            }
            (ChunkState::TrailerStart, b'\r') => ChunkState::LastLf,
            (ChunkState::TrailerStart, b' ' | b'\t') => return Err("a trailer is folded"),
            (ChunkState::Trailer, b'\r') => ChunkState::TrailerLf,
            (ChunkState::TrailerLf, b'\n') => ChunkState::TrailerStart,
            (ChunkState::LastLf, b'\n') => ChunkState::End,
            (ChunkState::SizeLf | ChunkState::TrailerLf | ChunkState::LastLf, _) => {
                return Err("a line of the chunks is ended by CR alone");
            }
            (ChunkState::Extension | ChunkState::TrailerStart | ChunkState::Trailer, b'\n') => {
                return Err("a line of the chunks is ended by LF alone");
            }
            (
                ChunkState::Extension | ChunkState::TrailerStart | ChunkState::Trailer,
                0..=8 | 11..=31 | 127,
            ) => {
                return Err("there is a control byte among the chunks");
            }
            (ChunkState::Extension, _) => self.extra(ChunkState::Extension)?,
            (ChunkState::TrailerStart | ChunkState::Trailer, _) => {
                self.extra(ChunkState::Trailer)?
            }
            (ChunkState::Data | ChunkState::End, _) => self.at,
        };
        Ok(())
    }

    const fn extra(&mut self, at: ChunkState) -> Result<ChunkState, &'static str> {
        self.extra += 1;
        if self.extra > MAX_EXTRA {
            Err("the chunks' extensions or trailers are too long")
        } else {
            Ok(at)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes are the body's, fed whole and byte by byte alike; none where it is not whole.
    fn body(text: &[u8]) -> Result<Option<usize>, &'static str> {
        let mut whole = Chunks::new();
        let at_once = whole
            .follow(text)
            .map_err(|(_, what)| what)
            .map(|length| whole.ended().then_some(length));
        let mut single = Chunks::new();
        let mut length = 0;
        let mut result = Ok(None);
        for byte in text {
            match single.follow(std::slice::from_ref(byte)) {
                Ok(taken) => length += taken,
                Err((_, what)) => {
                    result = Err(what);
                    break;
                }
            }
        }
        if result.is_ok() {
            result = Ok(single.ended().then_some(length));
        }
        assert_eq!(at_once, result);
        at_once
    }

    #[test]
    fn t6_chunks_are_exact() {
        assert_eq!(body(b"7\r\n{\"a\":1}\r\n0\r\n\r\nGET"), Ok(Some(17)));
        assert_eq!(
            body(b"007;a=b;c\r\n{\"a\":1}\r\n000\r\nX-A: 1\r\n\r\nGET"),
            Ok(Some(35))
        );
        assert_eq!(body(b"7\r\n{\"a"), Ok(None));
        for wrong in [
            &b"+7\r\n{\"a\":1}\r\n0\r\n\r\n"[..],
            b"7z\r\n",
            b"\r\n\r\n",
            b" 7\r\n",
            b"7 \r\n",
            b"10000000000000007\r\n",
            b"7\r\n{\"a\":1}XX0\r\n\r\n",
            b"3\r\n{\"a\":1}\r\n0\r\n\r\n",
            b"7;a\r;b\r\n",
            b"7;a=\0\r\n",
            b"7\n{\"a\":1}\n0\n\n",
            b"7\r\n{\"a\":1}\n0\r\n\r\n",
            b"0\r\n\n",
            b"0\r\nX: 1\n\r\n",
            b"0\r\n X: 1\r\n\r\n",
            b"-1\r\n",
            b"0x1\r\n",
        ] {
            assert!(body(wrong).is_err(), "{:?}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn t7_extensions_and_trailers_are_bounded() {
        let long = "x".repeat(17 * 1024);
        assert!(body(format!("1;{long}\r\n").as_bytes()).is_err());
        assert!(body(format!("0\r\nx:{long}\r\n\r\n").as_bytes()).is_err());
        let many = "1;xxxxxxxxxx\r\na\r\n".repeat(2_000);
        assert!(body(many.as_bytes()).is_err());
        assert!(body(b"1;xxxxxxxxxx\r\na\r\n0\r\n\r\n").is_ok());
    }
}
