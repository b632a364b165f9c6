//! The variables that say how an object store is reached and as whom, checked for what would come to grief later.
//!
//! The crate that asks and signs expects that each address is one and that a header takes its text: where it does not, it panics, and an
//! engine ends by that. So nothing else gets to it, from a variable or from what tells a machine who it is.

use std::sync::Arc;

use async_trait::async_trait;
use hyper::Uri;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, AwsCredentialProvider};
use object_store::{ClientOptions, CredentialProvider, Error, RetryConfig};
use url::{Host, Url};

use super::OpenObjectError;
use super::http::Connector;

/// The crate puts the text of the token's file into a header as it is. It is given this one; [`Connector`] puts the token in.
const NO_TOKEN: &str = "/dev/null";
/// Where a container's relative address is.
const CONTAINER: &str = "http://169.254.170.2";

/// What the variables say.
pub(super) struct Settings {
    builder: AmazonS3Builder,
    /// The file with the authorities of the store's certificate.
    pub(super) ca_bundle: Option<String>,
    /// The file with what a container shows when it asks who it is.
    pub(super) token_file: Option<String>,
}

impl Settings {
    pub(super) fn read(
        place: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, OpenObjectError> {
        // Which addresses may be asked without TLS is decided here, not by a variable.
        let options = ClientOptions::new().with_allow_http(true);
        let builder = AmazonS3Builder::new().with_client_options(options);
        let mut settings = Self { builder, ca_bundle: None, token_file: None };
        let wrong = |reason| OpenObjectError::Setting { place: place.to_owned(), reason };
        for (name, value) in variables.into_iter().filter(|(_, value)| !value.is_empty()) {
            if name == "AWS_CA_BUNDLE" {
                settings.ca_bundle = Some(value);
            } else if name == "AWS_BUCKET" || name == "AWS_BUCKET_NAME" {
                // The place says which.
            } else if name.starts_with("AWS_")
                && let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>()
                && !matches!(key, AmazonS3ConfigKey::Client(_) | AmazonS3ConfigKey::ConditionalPut)
            {
                let mut value = checked(key, value).map_err(|fault| fault.of(place, &name))?;
                if key == AmazonS3ConfigKey::ContainerAuthorizationTokenFile {
                    settings.token_file = Some(std::mem::replace(&mut value, NO_TOKEN.to_owned()));
                }
                settings.builder = settings.builder.with_config(key, value);
            }
        }
        if settings.has_keys() != settings.has(AmazonS3ConfigKey::SecretAccessKey) {
            return Err(wrong("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY go together".to_owned()));
        }
        Ok(settings)
    }

    /// False if the machine is asked who is asking.
    pub(super) fn has_keys(&self) -> bool {
        self.has(AmazonS3ConfigKey::AccessKeyId)
    }

    fn has(&self, key: AmazonS3ConfigKey) -> bool {
        self.builder.get_config_value(&key).is_some()
    }

    /// A bucket of the store.
    pub(super) fn store(
        &self,
        bucket: &str,
        retries: &RetryConfig,
        connector: &Connector,
    ) -> object_store::Result<AmazonS3> {
        let builder = self.builder.clone().with_bucket_name(bucket);
        let builder = builder.with_retry(retries.clone()).with_http_connector(connector.clone());
        let told = Arc::clone(builder.clone().build()?.credentials());
        builder.with_credentials(Arc::new(Sound(told))).build()
    }
}

/// Who is asking, if a header takes it.
#[derive(Debug)]
struct Sound(AwsCredentialProvider);

#[async_trait]
impl CredentialProvider for Sound {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let credential = self.0.get_credential().await?;
        if is_visible(&credential.key_id) && credential.token.as_deref().is_none_or(is_visible) {
            return Ok(credential);
        }
        let source = "the key or the token that this machine was given has a character that no header takes";
        Err(Error::Generic { store: "S3", source: source.into() })
    }
}

/// What is wrong with a variable. Its value is not shown: it may be a secret.
enum Fault {
    Text,
    Region,
    Url,
    Service,
    Relative,
    /// With the host.
    Plain(String),
}

impl Fault {
    fn of(self, place: &str, name: &str) -> OpenObjectError {
        let what = match self {
            Self::Plain(host) => return OpenObjectError::Plain(host),
            Self::Text => "has a character that is no visible one, as a line's end",
            Self::Region => "is no name of a region",
            Self::Url => "is no URL of https, or has a user, a password, `?` or `#` in it",
            Self::Service => "is no URL of http or https, or has a user, a password or `#` in it",
            Self::Relative => "is no path that begins with `/`",
        };
        OpenObjectError::Setting { place: place.to_owned(), reason: format!("{name} {what}") }
    }
}

fn checked(key: AmazonS3ConfigKey, value: String) -> Result<String, Fault> {
    if !is_visible(&value) {
        return Err(Fault::Text);
    }
    match key {
        AmazonS3ConfigKey::S3Endpoint | AmazonS3ConfigKey::Endpoint => endpoint(&value),
        AmazonS3ConfigKey::MetadataEndpoint
        | AmazonS3ConfigKey::StsEndpoint
        | AmazonS3ConfigKey::ContainerCredentialsFullUri => service(&value),
        AmazonS3ConfigKey::ContainerCredentialsRelativeUri => {
            let is_path = value.starts_with('/') && is_uri(&format!("{CONTAINER}{value}"));
            if is_path { Ok(value) } else { Err(Fault::Relative) }
        }
        AmazonS3ConfigKey::Region | AmazonS3ConfigKey::DefaultRegion => {
            let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            if value.bytes().all(is_usual) { Ok(value) } else { Err(Fault::Region) }
        }
        _ => Ok(value),
    }
}

/// The address of a store as it is signed: a host in lower case, no port that goes without saying.
fn endpoint(value: &str) -> Result<String, Fault> {
    let url = bare(value).filter(|url| url.query().is_none()).ok_or(Fault::Url)?;
    let is_here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => return Err(Fault::Url),
    };
    match url.scheme() {
        "http" if !is_here => Err(Fault::Plain(url.host_str().unwrap_or_default().to_owned())),
        "http" | "https" => Ok(url.as_str().trim_end_matches('/').to_owned()),
        _ => Err(Fault::Url),
    }
}

/// The address of what tells a machine who it is. Which of these are asked without TLS is decided when they are.
fn service(value: &str) -> Result<String, Fault> {
    let url = bare(value).filter(|url| matches!(url.scheme(), "http" | "https")).ok_or(Fault::Service)?;
    // Some are begun by this, and the crate sets a slash behind it.
    Ok(if url.path() == "/" && url.query().is_none() {
        url.as_str().trim_end_matches('/').to_owned()
    } else {
        url.into()
    })
}

/// An address and nothing else. The crate has two ideas of what one is: it has to be both.
fn bare(value: &str) -> Option<Url> {
    let url = Url::parse(value).ok()?;
    let is_bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    (is_bare && url.has_host() && is_uri(url.as_str())).then_some(url)
}

/// True if every header takes it.
pub(super) fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn is_uri(text: &str) -> bool {
    text.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()))
}

/// True if a bucket's name can be part of a host's, as it is where the variables ask for that.
pub(super) fn is_bucket(name: &str) -> bool {
    let is_usual = |character: char| character.is_ascii_alphanumeric() || "-._".contains(character);
    !name.is_empty() && name.chars().all(is_usual) && bare(&format!("https://{name}.example")).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_asked_as_it_is_signed() {
        for (value, expected) in [
            ("https://Store.Example:443/", "https://store.example"),
            ("https://store.example:9000", "https://store.example:9000"),
            ("HTTP://LOCALHOST:80/below/", "http://localhost/below"),
        ] {
            assert!(matches!(endpoint(value), Ok(endpoint) if endpoint == expected), "{value}");
        }
    }

    #[test]
    fn services_of_a_machine_are_asked_where_they_are() {
        for (value, expected) in [
            ("http://169.254.169.254", "http://169.254.169.254"),
            ("http://169.254.169.254/", "http://169.254.169.254"),
            ("http://169.254.170.23/v1/credentials", "http://169.254.170.23/v1/credentials"),
            ("http://[fd00:ec2::23]/v1/credentials", "http://[fd00:ec2::23]/v1/credentials"),
            ("https://STS.Example/a?b=c", "https://sts.example/a?b=c"),
        ] {
            assert!(matches!(service(value), Ok(service) if service == expected), "{value}");
        }
    }
}
