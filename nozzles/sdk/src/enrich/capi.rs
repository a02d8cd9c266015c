//! The Cloud Controller's v3 API: lists of apps with their spaces and organisations.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use loggregator_net::http::client::{Answer, Client, ClientError, Question};
use serde::Deserialize;
use tokio::time::Instant;

use super::guid;
use crate::event::Names;

/// Ids of one request: they keep its line below 8 KiB.
pub(super) const MOST_IDS: usize = 200;
/// Apps of a page, the most that the Cloud Controller gives.
const PAGE: usize = 5000;
/// How long an answer may take. A page of 5,000 apps takes a busy Cloud Controller a while.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of an answer: a page has about 2 KiB for each app.
pub(super) const MAX_ANSWER: usize = 64 << 20;

/// The path of the first page of all apps. Older apps first, so that pages stay what they are while apps are pushed.
pub(super) fn all_apps() -> String {
    format!("/v3/apps?per_page={PAGE}&include=space.organization&order_by=created_at")
}

/// The path of these apps.
pub(super) fn some_apps(ids: &[u128]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| guid::text(*id)).collect();
    let ids = ids.join(",");
    format!("/v3/apps?per_page={MOST_IDS}&include=space.organization&guids={ids}")
}

/// Asks.
pub(super) async fn ask(
    client: &Client,
    url: &str,
    path: &str,
    authorization: &str,
) -> Result<Answer, ClientError> {
    let mut question = Question::new(Bytes::new());
    *question.uri_mut() = format!("{url}{path}")
        .parse()
        .map_err(|_| ClientError::Address)?;
    let mut value = HeaderValue::from_str(authorization).map_err(|_| ClientError::Address)?;
    value.set_sensitive(true);
    question.headers_mut().insert(AUTHORIZATION, value);
    question
        .headers_mut()
        .insert(ACCEPT, HeaderValue::from_static("application/json"));
    client.send(question, Instant::now() + PATIENCE).await
}

/// A page of apps.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub apps: Vec<(u128, Names)>,
    /// Path and query of the next one.
    pub next: Option<String>,
}

#[derive(Deserialize)]
struct Body {
    pagination: Pagination,
    resources: Vec<App>,
    #[serde(default)]
    included: Included,
}

#[derive(Deserialize)]
struct Pagination {
    next: Option<Link>,
}

#[derive(Deserialize)]
struct Link {
    href: String,
}

#[derive(Deserialize)]
struct App {
    guid: String,
    name: String,
    relationships: OfApp,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    labels: BTreeMap<String, Option<String>>,
    #[serde(default)]
    annotations: BTreeMap<String, Option<String>>,
}

#[derive(Deserialize)]
struct OfApp {
    space: To,
}

#[derive(Deserialize)]
struct To {
    data: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    guid: String,
}

#[derive(Deserialize, Default)]
struct Included {
    #[serde(default)]
    spaces: Vec<Space>,
    #[serde(default)]
    organizations: Vec<Organization>,
}

#[derive(Deserialize)]
struct Space {
    guid: String,
    name: String,
    relationships: OfSpace,
}

#[derive(Deserialize)]
struct OfSpace {
    organization: To,
}

#[derive(Deserialize)]
struct Organization {
    guid: String,
    name: String,
}

/// Reads a page, with what is wanted beside names. Apps whose ids are no GUIDs are left out.
pub(super) fn read(
    body: &[u8],
    labels: bool,
    annotations: bool,
) -> Result<Page, serde_json::Error> {
    let body: Body = serde_json::from_slice(body)?;
    let by_guid = |list: Vec<Space>| -> HashMap<String, Space> {
        list.into_iter()
            .map(|space| (space.guid.clone(), space))
            .collect()
    };
    let spaces = by_guid(body.included.spaces);
    let organizations = body.included.organizations.into_iter();
    let organizations: HashMap<String, String> =
        organizations.map(|org| (org.guid, org.name)).collect();
    let names = |app: App| {
        let id = guid::parse(&app.guid)?;
        let mut names = Names {
            app: app.name,
            ..Names::default()
        };
        if let Some(space) = app.relationships.space.data {
            if let Some(known) = spaces.get(&space.guid) {
                names.space.clone_from(&known.name);
                if let Some(org) = &known.relationships.organization.data {
                    names.org_id.clone_from(&org.guid);
                    names.org = organizations.get(&org.guid).cloned().unwrap_or_default();
                }
            }
            names.space_id = space.guid;
        }
        if labels {
            names.labels = with_values(app.metadata.labels);
        }
        if annotations {
            names.annotations = with_values(app.metadata.annotations);
        }
        Some((id, names))
    };
    Ok(Page {
        apps: body.resources.into_iter().filter_map(names).collect(),
        next: body.pagination.next.and_then(|link| path(&link.href)),
    })
}

fn with_values(map: BTreeMap<String, Option<String>>) -> Vec<(String, String)> {
    map.into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
}

/// Path and query of an address: the token goes nowhere else than to the Cloud Controller that is configured.
fn path(href: &str) -> Option<String> {
    let uri: http::Uri = href.parse().ok()?;
    let path = uri.path_and_query()?.as_str();
    path.starts_with("/v3/apps?").then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE_OF_TWO: &str = r#"{
        "pagination": {"total_results": 3, "next": {"href": "https://api.example.com/v3/apps?page=2&per_page=2"}},
        "resources": [
            {"guid": "00000000-0000-0000-0000-00000000000a", "name": "web", "state": "STARTED",
             "relationships": {"space": {"data": {"guid": "s1"}}},
             "metadata": {"labels": {"team": "a", "gone": null}, "annotations": {"note": "n"}}},
            {"guid": "not-a-guid", "name": "odd", "relationships": {"space": {"data": null}}},
            {"guid": "00000000-0000-0000-0000-00000000000b", "name": "worker",
             "relationships": {"space": {"data": {"guid": "s2"}}}}],
        "included": {
            "spaces": [{"guid": "s1", "name": "prod", "relationships": {"organization": {"data": {"guid": "o1"}}}}],
            "organizations": [{"guid": "o1", "name": "acme"}]}}"#;

    #[test]
    fn a_page_is_joined_with_its_spaces_and_organisations() {
        let web = Names {
            app: "web".into(),
            space_id: "s1".into(),
            space: "prod".into(),
            org_id: "o1".into(),
            org: "acme".into(),
            ..Names::default()
        };
        let worker = Names {
            app: "worker".into(),
            space_id: "s2".into(),
            ..Names::default()
        };
        let next = Some("/v3/apps?page=2&per_page=2".to_owned());
        let page = read(PAGE_OF_TWO.as_bytes(), false, false).unwrap();
        assert_eq!(
            page,
            Page {
                apps: vec![(10, web), (11, worker)],
                next
            }
        );
        let page = read(PAGE_OF_TWO.as_bytes(), true, true).unwrap();
        assert_eq!(page.apps[0].1.labels, [("team".to_owned(), "a".to_owned())]);
        assert_eq!(
            page.apps[0].1.annotations,
            [("note".to_owned(), "n".to_owned())]
        );
        assert!(read(b"{}", false, false).is_err());
        assert!(read(b"<html>", false, false).is_err());
        let last = br#"{"pagination":{"next":null},"resources":[]}"#;
        assert_eq!(
            read(last, false, false).unwrap(),
            Page {
                apps: vec![],
                next: None
            }
        );
    }

    #[test]
    fn requests_have_nothing_but_ids_in_them_and_stay_short() {
        assert_eq!(
            some_apps(&[1, u128::MAX]),
            "/v3/apps?per_page=200&include=space.organization&guids=00000000-0000-0000-0000-000000000001,\
             ffffffff-ffff-ffff-ffff-ffffffffffff"
        );
        assert!(some_apps(&[u128::MAX; MOST_IDS]).len() < 8000);
        for odd in [
            "https://evil.example.com/",
            "/v3/users?x",
            "",
            "https://api.example.com/v3/apps/1",
        ] {
            assert_eq!(path(odd), None, "{odd}");
        }
        assert_eq!(
            path("https://evil.example.com/v3/apps?page=2").unwrap(),
            "/v3/apps?page=2"
        );
    }
}
