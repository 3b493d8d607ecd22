//! The listener: slow and many, proxies in front, TLS and HTTP/2. Names carry the row of the threat page.
