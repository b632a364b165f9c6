//! Where deliveries may go: not into private networks, whatever a name resolves to.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::http::Uri;
use tokio::net::lookup_host;

/// An endpoint's address, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) is_tls: bool,
    /// Without the brackets of an IPv6 address.
    pub(crate) host: String,
    port: u16,
    pub(crate) path: String,
}

/// Why an address is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It is no address of HTTP, or has a name and password in it.
    #[error("it is no URL such as https://shop.example/events")]
    Url,
    /// Without TLS anybody on the way could read it.
    #[error("it is not https, and private endpoints are not allowed")]
    Plain,
}

impl Endpoint {
    pub(crate) fn read(url: &str, allow_private: bool) -> Result<Self, EndpointError> {
        let uri: Uri = url.parse().map_err(|_| EndpointError::Url)?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if allow_private => false,
            Some("http") => return Err(EndpointError::Plain),
            _ => return Err(EndpointError::Url),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.ok_or(EndpointError::Url)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            is_tls,
            host: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
        })
    }

    /// What a request names as its host.
    pub(crate) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Where to connect now. What is found here is what is connected to, so that a name cannot change its mind in between.
    pub(crate) async fn resolve(&self, allow_private: bool) -> io::Result<Vec<SocketAddr>> {
        let found = lookup_host((self.host.as_str(), self.port)).await?;
        let allowed: Vec<SocketAddr> =
            found.filter(|address| allow_private || is_public(address.ip())).collect();
        if allowed.is_empty() {
            let why = "its name leads to no public address";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        Ok(allowed)
    }
}

/// True for addresses of the internet itself.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || a == 0
        // Shared by carriers; protocols; benchmarks; relays; multicast and beyond.
        || (a == 100 && (64..128).contains(&b))
        || (a, b, c) == (192, 0, 0)
        || (a == 198 && matches!(b, 18 | 19))
        || (a, b, c) == (192, 88, 99)
        || a >= 224;
    !is_special
}

/// Global unicast alone, without documentation, and without what carries addresses of version 4 in it.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let is_global = a & 0xe000 == 0x2000;
    let is_special = match a {
        0x2001 => b < 0x0200 || b == 0x0db8,
        0x2002 | 0x3fff => true,
        _ => false,
    };
    is_global && !is_special
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use super::*;

    #[test]
    fn private_networks_are_not_public() {
        let check =
            |address: &str, expect| assert_eq!(is_public(address.parse().unwrap()), expect, "{address}");
        for address in ["8.8.8.8", "93.184.216.34", "172.32.0.1", "2606:4700::1111", "2a00:1450:4001::1"] {
            check(address, true);
        }
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
            "ff02::1",
        ] {
            check(address, false);
        }
    }

    #[test]
    fn addresses_are_read() {
        let read = |url, allow_private| Endpoint::read(url, allow_private);
        let shop = read("https://shop.example/events?a=1", false).unwrap();
        assert_eq!((shop.authority().as_str(), shop.path.as_str()), ("shop.example:443", "/events?a=1"));
        assert_eq!(read("https://shop.example", false).unwrap().path, "/");
        assert_eq!(read("http://shop.example/", false), Err(EndpointError::Plain));
        let literal = read("https://[2606:4700::1111]:8443/", false).unwrap();
        assert_eq!(literal.authority(), "[2606:4700::1111]:8443");
        let name = rustls::pki_types::ServerName::try_from(literal.host).unwrap();
        assert!(matches!(name, rustls::pki_types::ServerName::IpAddress(_)));
        assert!(!read("http://127.0.0.1:8080/", true).unwrap().is_tls);
        for url in ["", "shop.example", "/events", "ftp://shop.example", "https://me:you@shop.example/"] {
            assert_eq!(read(url, true), Err(EndpointError::Url), "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_leads_nowhere() {
        let inside = Endpoint::read("https://localhost/", false).unwrap();
        assert_eq!(inside.resolve(false).await.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(!inside.resolve(true).await.unwrap().is_empty());
    }
}
