//! Fetching what a request names: a certificate, a confirmation, a file. The address is somebody else's word, so all
//! of it is bounded and guarded (`guard`): where it leads, how often it leads on, how much comes and how long it takes.
//! Nothing is inflated, and what is cut off is an error, never a short file.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT_ENCODING, LOCATION};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::client::{Client, SendError};
use super::guard::Forbidden;

/// Redirects in a row at most.
const MAX_REDIRECTS: usize = 3;

/// The bounds of one download.
#[derive(Clone, Copy, Debug)]
pub struct DownloadBounds {
    /// From the first look-up to the last byte.
    pub time: Duration,
    /// Longest pause.
    pub stall: Duration,
    /// Largest size.
    pub bytes: u64,
}

/// Error of a download.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DownloadError {
    /// The address, or one it leads on to, must not be asked.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// It leads on and on, or to nowhere.
    #[error("it leads on more than {MAX_REDIRECTS} times, or to no address")]
    Redirects,
    /// It was answered, but not with what it names.
    #[error("it answered {0}")]
    Status(StatusCode),
    /// It is larger than it may be.
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    /// It takes longer than it may.
    #[error("it takes longer than {0:?}, or stands still")]
    Slow(Duration),
    /// It could not be reached, or broke off.
    #[error("{0}")]
    Broken(String),
}

/// A download that has begun.
#[derive(Debug)]
pub struct Download {
    /// The headers of the answer, for its type and name.
    pub headers: HeaderMap,
    body: Incoming,
    bounds: DownloadBounds,
    end: Instant,
    length: u64,
}

impl Client {
    /// Asks for what stands at an address, and reads as far as the answer's head. `headers` go to the host of this
    /// address and to no other that it leads on to.
    pub async fn download(
        &self,
        address: &str,
        headers: HeaderMap,
        bounds: DownloadBounds,
    ) -> Result<Download, DownloadError> {
        let end = Instant::now() + bounds.time;
        let mut uri = self.guard().judge(address)?;
        let mut headers = headers;
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::get(uri.clone())
                .body(Bytes::new())
                .map_err(|_| DownloadError::Redirects)?;
            *request.headers_mut() = headers.clone();
            let left = end.saturating_duration_since(Instant::now());
            let answer = self
                .open_guarded(request, left)
                .await
                .map_err(|error| broken(error, end, bounds))?;
            let status = answer.status();
            if status == StatusCode::OK {
                return begun(answer, bounds, end);
            }
            if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Err(DownloadError::Status(status));
            }
            let to = answer
                .headers()
                .get(LOCATION)
                .and_then(|to| to.to_str().ok())
                .ok_or(DownloadError::Redirects)?;
            let next = self
                .guard()
                .judge(&resolve(&uri, to).ok_or(DownloadError::Redirects)?)?;
            if uri.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(Forbidden("it leads from https to http").into());
            }
            if next.authority() != uri.authority() || next.scheme() != uri.scheme() {
                headers =
                    HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
            }
            uri = next;
        }
        Err(DownloadError::Redirects)
    }
}

impl Client {
    /// The same for an address whose place was judged by its caller: a redirect would lead to another one, and is followed
    /// nowhere.
    pub async fn download_here(
        &self,
        address: &str,
        bounds: DownloadBounds,
    ) -> Result<Download, DownloadError> {
        let end = Instant::now() + bounds.time;
        let request =
            Request::get(self.guard().judge(address)?).header(ACCEPT_ENCODING, "identity");
        let request = request
            .body(Bytes::new())
            .map_err(|error| DownloadError::Broken(error.to_string()))?;
        let answer = self
            .open_guarded(request, bounds.time)
            .await
            .map_err(|error| broken(error, end, bounds))?;
        match answer.status() {
            StatusCode::OK => begun(answer, bounds, end),
            status => Err(DownloadError::Status(status)),
        }
    }

    /// The same for an address whose host the operator wrote: it may be any, and a redirect is followed nowhere.
    pub async fn download_pinned(
        &self,
        mut request: Request<Bytes>,
        bounds: DownloadBounds,
    ) -> Result<Download, DownloadError> {
        let end = Instant::now() + bounds.time;
        request
            .headers_mut()
            .insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let head = bounds.time.min(bounds.stall);
        let answer = self
            .open(request, head)
            .await
            .map_err(|error| broken(error, end, bounds))?;
        match answer.status() {
            StatusCode::OK => begun(answer, bounds, end),
            status => Err(DownloadError::Status(status)),
        }
    }
}

impl Download {
    /// The next piece; none when it is whole.
    pub async fn next(&mut self) -> Result<Option<Bytes>, DownloadError> {
        loop {
            let until = self.end.min(Instant::now() + self.bounds.stall);
            let frame = match tokio::time::timeout_at(until, self.body.frame()).await {
                Err(_) => return Err(DownloadError::Slow(self.bounds.time)),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => {
                    return Err(DownloadError::Broken(format!("it was cut off: {error}")));
                }
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(piece) = frame.into_data() else {
                continue;
            };
            self.length += piece.len() as u64;
            if self.length > self.bounds.bytes {
                return Err(DownloadError::TooLarge(self.bounds.bytes));
            }
            return Ok(Some(piece));
        }
    }

    /// All of it.
    pub async fn whole(mut self) -> Result<Bytes, DownloadError> {
        let mut whole = BytesMut::new();
        while let Some(piece) = self.next().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }
}

fn begun(
    answer: Response<Incoming>,
    bounds: DownloadBounds,
    end: Instant,
) -> Result<Download, DownloadError> {
    let (head, body) = answer.into_parts();
    if body.size_hint().lower() > bounds.bytes {
        return Err(DownloadError::TooLarge(bounds.bytes));
    }
    Ok(Download {
        headers: head.headers,
        body,
        bounds,
        end,
        length: 0,
    })
}

fn broken(error: SendError, end: Instant, bounds: DownloadBounds) -> DownloadError {
    if Instant::now() >= end {
        DownloadError::Slow(bounds.time)
    } else {
        DownloadError::Broken(error.to_string())
    }
}

/// The address that a redirect leads to (RFC 3986, 5.2, without the dots: the server reads those as well as we do).
fn resolve(from: &Uri, to: &str) -> Option<String> {
    let to = to.split('#').next().unwrap_or_default();
    let scheme = from.scheme_str()?;
    let authority = from.authority()?;
    if to.contains("://") && !to.starts_with(['/', '?']) {
        return Some(to.to_owned());
    }
    if let Some(rest) = to.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    let path = match to.as_bytes().first() {
        None => return None,
        Some(b'/') => to.to_owned(),
        Some(b'?') => format!("{}{to}", from.path()),
        Some(_) => format!(
            "{}/{to}",
            from.path()
                .rsplit_once('/')
                .map_or("", |(folder, _)| folder)
        ),
    };
    Some(format!("{scheme}://{authority}{path}"))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const BOUNDS: DownloadBounds = DownloadBounds {
        time: Duration::from_secs(2),
        stall: Duration::from_millis(300),
        bytes: 100,
    };

    fn client(allow: &[&str]) -> Client {
        let allow: Vec<_> = allow.iter().map(|block| block.parse().unwrap()).collect();
        Client::new(Duration::from_millis(300), None)
            .unwrap()
            .allowing(&allow)
    }

    /// Answers each path with what is told for it; keeps the heads that came.
    async fn server(answers: Vec<(&'static str, String)>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (answers, seen) = (answers.clone(), seen.clone());
                tokio::spawn(async move {
                    let mut head = vec![0; 4096];
                    let length = stream.read(&mut head).await.unwrap_or(0);
                    let head = String::from_utf8_lossy(&head[..length]).into_owned();
                    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    seen.lock().push(head);
                    let answer = answers
                        .iter()
                        .find(|(at, _)| *at == path)
                        .map(|(_, answer)| answer.clone());
                    let _ = stream
                        .write_all(answer.unwrap_or_default().as_bytes())
                        .await;
                    if path.contains("hold") {
                        tokio::time::sleep(Duration::from_secs(30)).await;
                    }
                });
            }
        });
        (address, heads)
    }

    fn ok(body: &str) -> String {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    fn to(location: &str) -> String {
        format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
    }

    async fn get(client: &Client, address: &str) -> Result<Bytes, DownloadError> {
        client
            .download(address, HeaderMap::new(), BOUNDS)
            .await?
            .whole()
            .await
    }

    #[tokio::test]
    async fn t70_t71_what_is_not_public_is_not_connected() {
        let (at, heads) = server(vec![("/", ok("secret"))]).await;
        for address in [
            format!("http://{at}/"),
            format!("http://localhost:{}/", at.port()),
        ] {
            let error = get(&client(&[]), &address).await.unwrap_err();
            assert!(
                error.to_string().contains("public internet"),
                "{address}: {error}"
            );
        }
        assert!(heads.lock().is_empty());
        let both = client(&["127.0.0.0/8", "::1"]);
        assert_eq!(
            get(&both, &format!("http://localhost:{}/", at.port()))
                .await
                .unwrap(),
            "secret"
        );
    }

    #[tokio::test]
    async fn t72_redirects_are_few_judged_each_and_take_no_credentials_along() {
        let (other, seen_there) = server(vec![("/file", ok("there"))]).await;
        let (at, _) = server(vec![
            ("/one", to("two?x=1")),
            ("/two?x=1", to("/three")),
            ("/three", to(&format!("http://{other}/file"))),
            ("/loop", to("/loop")),
            ("/in", to("http://10.0.0.1/")),
            ("/odd", to("file:///etc/passwd")),
            (
                "/none",
                "HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n".into(),
            ),
            (
                "/gone",
                "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".into(),
            ),
        ])
        .await;
        let client = client(&["127.0.0.0/8"]);
        let headers = HeaderMap::from_iter([(
            http::header::AUTHORIZATION,
            HeaderValue::from_static("Bearer planted"),
        )]);
        // A certificate stands where its provider's file says, and nowhere that this leads to.
        let here = client
            .download_here(&format!("http://{at}/one"), BOUNDS)
            .await
            .map(|_| ());
        assert_eq!(here, Err(DownloadError::Status(StatusCode::FOUND)));
        let file = client
            .download(&format!("http://{at}/one"), headers, BOUNDS)
            .await
            .unwrap();
        assert_eq!(file.whole().await.unwrap(), "there");
        let head = seen_there.lock()[0].clone();
        assert!(
            !head.contains("planted") && head.contains("accept-encoding: identity"),
            "{head}"
        );
        for (path, error) in [
            ("/loop", DownloadError::Redirects),
            ("/none", DownloadError::Redirects),
            (
                "/in",
                Forbidden("it is not one of the public internet").into(),
            ),
            ("/gone", DownloadError::Status(StatusCode::NOT_FOUND)),
        ] {
            assert_eq!(
                get(&client, &format!("http://{at}{path}"))
                    .await
                    .unwrap_err(),
                error,
                "{path}"
            );
        }
        assert!(matches!(
            get(&client, &format!("http://{at}/odd")).await,
            Err(DownloadError::Forbidden(_))
        ));
    }

    #[tokio::test]
    async fn t73_endless_huge_slow_and_cut_downloads_are_errors() {
        let endless = format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}",
            "5\r\nhello\r\n".repeat(50)
        );
        let (at, _) = server(vec![
            ("/said", ok(&"x".repeat(101))),
            ("/hold-endless", endless),
            (
                "/hold-slow",
                "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhalf".into(),
            ),
            (
                "/cut",
                "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhalf".into(),
            ),
            ("/hold-head", "HTTP/1.1 200".into()),
        ])
        .await;
        let client = client(&["127.0.0.0/8"]);
        let get = async |path: &str| {
            get(&client, &format!("http://{at}{path}"))
                .await
                .unwrap_err()
        };
        assert_eq!(get("/said").await, DownloadError::TooLarge(100));
        assert_eq!(get("/hold-endless").await, DownloadError::TooLarge(100));
        assert_eq!(get("/hold-slow").await, DownloadError::Slow(BOUNDS.time));
        assert_eq!(get("/hold-head").await, DownloadError::Slow(BOUNDS.time));
        assert!(matches!(get("/cut").await, DownloadError::Broken(_)));
    }

    #[test]
    fn where_redirects_lead() {
        let from: Uri = "https://a.example:8443/x/y?z".parse().unwrap();
        for (to, address) in [
            ("https://b.example/", "https://b.example/"),
            ("//b.example/q", "https://b.example/q"),
            ("/q?r#s", "https://a.example:8443/q?r"),
            ("q", "https://a.example:8443/x/q"),
            ("?r", "https://a.example:8443/x/y?r"),
        ] {
            assert_eq!(resolve(&from, to).as_deref(), Some(address));
        }
        assert_eq!(resolve(&from, ""), None);
    }
}
