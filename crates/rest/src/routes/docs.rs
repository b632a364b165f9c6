//! `/openapi.json`, and a page to read and try what it describes. Both are everybody's: they tell nothing of any tenant.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

/// The description of all paths.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Surety",
        description = "Collateral for payments, over HTTP. Amounts are decimal texts of a named asset. Each request that changes \
                       something carries an `Idempotency-Key`, a UUIDv7: repeat a request under its key until it is answered.",
        license(name = "MIT OR Apache-2.0")
    ),
    paths(
        super::locks::create,
        super::locks::list,
        super::locks::show,
        super::changes::increase,
        super::changes::capture,
        super::changes::release,
        super::changes::refund,
        super::changes::settle,
        super::changes::consume,
        super::certificates::show,
        super::partitions::list,
        super::partitions::show,
        super::events::list,
        super::history::records,
        super::history::locks,
        super::history::lock,
        super::history::open,
        super::history::balances,
        super::history::merchant_statement,
        super::history::partition_statement,
        super::history::status,
        super::webhooks::list,
        super::webhooks::pause,
        super::webhooks::resume,
        super::webhooks::replay,
    ),
    components(schemas(crate::problem::Problem)),
    modifiers(&Tokens),
    security(("token" = [])),
)]
pub(crate) struct Description;

/// Says how a request shows whose it is.
struct Tokens;

impl Modify for Tokens {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

const PAGE: &str = include_str!("../page/index.html");
const SCRIPT: &str = include_str!("../page/try.js");
const STYLE: &str = include_str!("../page/page.css");
/// Nothing comes from elsewhere, and nothing goes there.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Where these are to be had.
pub(super) const PATHS: [&str; 4] = ["/openapi.json", "/", "/try.js", "/page.css"];

pub(super) fn router() -> Router {
    let description = Description::openapi().to_json().unwrap_or_default();
    let file = |kind: &'static str, text: &'static str| {
        get(move || async move {
            ([(header::CONTENT_TYPE, kind), (header::CONTENT_SECURITY_POLICY, POLICY)], text).into_response()
        })
    };
    let described = move || {
        let description = description.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], description) }
    };
    Router::new()
        .route(PATHS[0], get(described))
        .route(PATHS[1], file("text/html; charset=utf-8", PAGE))
        .route(PATHS[2], file("text/javascript; charset=utf-8", SCRIPT))
        .route(PATHS[3], file("text/css; charset=utf-8", STYLE))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn every_path_is_described_and_nothing_else() {
        let description: Value = serde_json::from_str(&Description::openapi().to_json().unwrap()).unwrap();
        assert!(description["openapi"].as_str().unwrap().starts_with("3.1"));
        let mut described: Vec<(String, Vec<String>)> = description["paths"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(path, methods)| (path.clone(), methods.as_object().unwrap().keys().cloned().collect()))
            .collect();
        let mut served: Vec<(String, Vec<String>)> = super::super::documented()
            .into_iter()
            .map(|(path, methods)| {
                (path.to_owned(), methods.iter().map(|&method| method.to_owned()).collect())
            })
            .collect();
        for all in [&mut described, &mut served] {
            all.iter_mut().for_each(|(_, methods)| methods.sort());
            all.sort();
        }
        assert_eq!(described, served);
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        for text in [PAGE, SCRIPT, STYLE] {
            assert!(!text.contains("http:") && !text.contains("https:"), "no address of another host");
        }
    }
}
