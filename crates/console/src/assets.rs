//! The pages themselves, built from `web/` and carried in the program.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

/// A file, what it is, and its bytes.
type Asset = (&'static str, &'static str, &'static [u8]);

const ASSETS: [Asset; 4] = [
    ("/console/", "text/html; charset=utf-8", include_bytes!("../assets/index.html")),
    ("/console/app.js", "text/javascript; charset=utf-8", include_bytes!("../assets/app.js")),
    ("/console/app.css", "text/css; charset=utf-8", include_bytes!("../assets/app.css")),
    ("/console/icon.svg", "image/svg+xml", include_bytes!("../assets/icon.svg")),
];

/// Adds them to a router.
pub(crate) fn add<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    let router = router.route("/", get(|| async { Redirect::to("/console/") }));
    let router = router.route("/console", get(|| async { Redirect::to("/console/") }));
    ASSETS.iter().fold(router, |router, (path, kind, bytes)| {
        router.route(path, get(move || async move { answer(kind, bytes) }))
    })
}

fn answer(kind: &'static str, bytes: &'static [u8]) -> Response {
    // Another version of the program has other files under the same names.
    let fresh = HeaderValue::from_static("no-cache");
    let kind = HeaderValue::from_static(kind);
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, fresh)], bytes).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_page_is_small_and_loads_nothing_from_elsewhere() {
        let bytes: usize = ASSETS.iter().map(|(_, _, bytes)| bytes.len()).sum();
        assert!(bytes <= 250_000, "{bytes} bytes, with the first answers more than 300 kB");
        let page = std::str::from_utf8(ASSETS[0].2).unwrap();
        for strange in ["http:", "https:", "//", "<style", " style=", "onclick"] {
            assert!(!page.contains(strange), "{strange}");
        }
        assert!(page.matches("<script").count() == page.matches("<script src=\"app.js\"").count());
    }
}
