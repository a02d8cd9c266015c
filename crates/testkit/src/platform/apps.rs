//! The Cloud Controller's list of apps, `GET /v3/apps`.

use serde_json::{Map, Value, json};

/// An app that the Cloud Controller knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct App {
    /// Its GUID.
    pub guid: String,
    /// Its name.
    pub name: String,
    /// Its space: GUID, name.
    pub space: (String, String),
    /// The space's organisation: GUID, name.
    pub org: (String, String),
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// Its annotations.
    pub annotations: Vec<(String, String)>,
}

/// The page that a query asks for, of these apps in their order. `base` is the Cloud Controller's public address.
pub(super) fn page(apps: &[App], query: &str, base: &str) -> Value {
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let number = |name: &str, default| value(name).and_then(|n| n.parse().ok()).unwrap_or(default);
    let (size, at) = (
        number("per_page", 50_usize).clamp(1, 5000),
        number("page", 1_usize).max(1),
    );
    let wanted = |app: &&App| match value("guids") {
        None => true,
        Some(guids) => guids.split(',').any(|guid| guid == app.guid),
    };
    let all: Vec<&App> = apps.iter().filter(wanted).collect();
    let shown = all.iter().skip((at - 1) * size).take(size);
    let next = (at * size < all.len()).then(|| {
        let others = query.split('&').filter(|pair| !pair.starts_with("page="));
        let others: Vec<&str> = others.collect();
        json!({ "href": format!("{base}/v3/apps?page={}&{}", at + 1, others.join("&")) })
    });
    let mut body = json!({
        "pagination": {
            "total_results": all.len(),
            "total_pages": all.len().div_ceil(size).max(1),
            "next": next,
        },
        "resources": shown.clone().map(|app| resource(app)).collect::<Vec<_>>(),
    });
    if value("include") == Some("space.organization") {
        body["included"] = included(shown.copied());
    }
    body
}

fn resource(app: &App) -> Value {
    let map = |pairs: &[(String, String)]| -> Map<String, Value> {
        pairs
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().into()))
            .collect()
    };
    json!({
        "guid": app.guid,
        "name": app.name,
        "state": "STARTED",
        "lifecycle": { "type": "buildpack", "data": { "buildpacks": [], "stack": "cflinuxfs4" } },
        "relationships": { "space": { "data": { "guid": app.space.0 } } },
        "metadata": { "labels": map(&app.labels), "annotations": map(&app.annotations) },
    })
}

fn included<'a>(apps: impl Iterator<Item = &'a App>) -> Value {
    let (mut spaces, mut organizations) = (Map::new(), Map::new());
    for app in apps {
        let space = json!({
            "guid": app.space.0,
            "name": app.space.1,
            "relationships": { "organization": { "data": { "guid": app.org.0 } } },
        });
        spaces.insert(app.space.0.clone(), space);
        let organization = json!({ "guid": app.org.0, "name": app.org.1 });
        organizations.insert(app.org.0.clone(), organization);
    }
    let list =
        |map: Map<String, Value>| map.into_iter().map(|(_, value)| value).collect::<Vec<_>>();
    json!({ "spaces": list(spaces), "organizations": list(organizations) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_and_hold_what_is_asked_for() {
        let app = |n: usize| App {
            guid: format!("g{n}"),
            name: format!("app-{n}"),
            ..App::default()
        };
        let apps: Vec<App> = (0..5).map(app).collect();
        let guids = |page: &Value| -> Vec<String> {
            let resources = page["resources"].as_array().unwrap().iter();
            resources
                .map(|app| app["guid"].as_str().unwrap().to_owned())
                .collect()
        };
        let mut query = "per_page=2&include=space.organization".to_owned();
        let mut seen = Vec::new();
        for _ in 0..3 {
            let page = page(&apps, &query, "https://api");
            seen.extend(guids(&page));
            let next = page["pagination"]["next"]["href"]
                .as_str()
                .unwrap_or_default();
            query = next
                .strip_prefix("https://api/v3/apps?")
                .unwrap_or_default()
                .to_owned();
        }
        assert_eq!(
            (seen.join(" "), query.as_str()),
            ("g0 g1 g2 g3 g4".to_owned(), "")
        );
        assert_eq!(guids(&page(&apps, "guids=g3,g9,g1", "")), ["g1", "g3"]);
    }
}
