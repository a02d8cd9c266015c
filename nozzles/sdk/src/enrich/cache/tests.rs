use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const REFRESH: u64 = 600;
const EXPIRE: u64 = 86_400;
const MAX: usize = 100;

fn cache(max: usize) -> Cache {
    let cache = Cache::new(
        max,
        Duration::from_secs(REFRESH),
        Duration::from_secs(EXPIRE),
    );
    cache.set_clock(1_000_000);
    cache
}

fn names(app: &str) -> Names {
    Names {
        app: app.to_owned(),
        ..Names::default()
    }
}

fn told(app: &str) -> Told {
    Told::Names(names(app))
}

fn app(cache: &Cache, id: u128) -> Option<String> {
    cache.names(id, || true).map(|names| names.app.clone())
}

#[test]
fn what_is_missing_is_asked_for_once_and_only_if_it_is_needed() {
    let cache = cache(MAX);
    for _ in 0..3 {
        assert_eq!(app(&cache, 7), None);
    }
    assert_eq!(cache.names(8, || false), None);
    assert_eq!(cache.waiting(), 1);
    assert_eq!(cache.take_wanted(10), [7]);
    assert_eq!(cache.take_wanted(10), [0_u128; 0]);
    cache.learn(vec![(7, told("web"))]);
    assert_eq!(app(&cache, 7).as_deref(), Some("web"));
    assert_eq!(cache.waiting(), 0);
}

#[test]
fn stale_names_are_served_and_asked_for_and_old_ones_are_not_used() {
    let cache = cache(MAX);
    cache.learn(vec![(7, told("web"))]);
    cache.set_clock(1_000_000 + REFRESH - 1);
    assert_eq!(app(&cache, 7).as_deref(), Some("web"));
    assert_eq!((cache.waiting(), cache.counts.hits.load(Relaxed)), (0, 1));
    cache.set_clock(1_000_000 + REFRESH * 2);
    for _ in 0..3 {
        assert_eq!(app(&cache, 7).as_deref(), Some("web"));
    }
    assert_eq!(
        (cache.take_wanted(10), cache.counts.stale.load(Relaxed)),
        (vec![7], 3)
    );
    // While it is asked for, it is not noted again.
    assert_eq!(app(&cache, 7).as_deref(), Some("web"));
    assert_eq!(cache.waiting(), 0);
    cache.set_clock(1_000_000 + EXPIRE + 1);
    assert_eq!(app(&cache, 7), None);
    assert_eq!(cache.waiting(), 1);
    cache.expire();
    assert_eq!((cache.len(), cache.counts.expired.load(Relaxed)), (0, 1));
}

#[test]
fn an_app_that_was_deleted_keeps_its_names_for_a_day() {
    let cache = cache(MAX);
    cache.learn(vec![(7, told("web"))]);
    for hour in 1..24 {
        cache.set_clock(1_000_000 + hour * 3600);
        assert_eq!(app(&cache, 7).as_deref(), Some("web"));
        assert_eq!(cache.take_wanted(10), [7]);
        cache.learn(vec![(7, Told::Unknown)]);
        cache.expire();
    }
    cache.set_clock(1_000_000 + 24 * 3600 + 1);
    assert_eq!(app(&cache, 7), None);
}

#[test]
fn an_unknown_id_is_asked_for_less_and_less() {
    let cache = cache(MAX);
    let (mut now, mut asked) = (1_000_000, Vec::new());
    assert_eq!(app(&cache, 7), None);
    for _ in 0..4 * 3600 {
        if !cache.take_wanted(10).is_empty() {
            asked.push(now - 1_000_000);
            cache.learn(vec![(7, Told::Unknown)]);
        }
        now += 1;
        cache.set_clock(now);
        assert_eq!(app(&cache, 7), None);
    }
    assert_eq!(asked[..8], [0, 60, 180, 420, 900, 1860, 3660, 5460]);
    assert_eq!(cache.known(), (0, 1));
    // Nobody looks it up any more.
    cache.set_clock(now + 3601);
    cache.expire();
    assert_eq!(cache.len(), 0);
}

#[test]
fn waiting_ids_are_bounded() {
    let cache = cache(MAX);
    for n in 0..MAX_WAITING as u128 + 5 {
        assert_eq!(app(&cache, n << 6), None); // all in one shard
    }
    assert_eq!(
        (cache.waiting(), cache.counts.refused.load(Relaxed)),
        (MAX_WAITING, 5)
    );
    let some = cache.take_wanted(200);
    assert_eq!((some.len(), cache.waiting()), (200, MAX_WAITING - 200));
    cache.want_again(&some);
    assert_eq!(cache.waiting(), MAX_WAITING);
}

#[test]
fn what_was_saved_is_known_and_soon_asked_for() {
    let cache = cache(2);
    let far_ahead = 5_000_000;
    cache.restore(vec![
        (1, names("a"), 999_000),
        (2, names("b"), far_ahead),
        (3, names("c"), 1),
    ]);
    assert_eq!(
        (app(&cache, 1).as_deref(), app(&cache, 2).as_deref()),
        (Some("a"), Some("b"))
    );
    assert_eq!(app(&cache, 3), None);
    let mut wanted = cache.take_wanted(10);
    wanted.sort_unstable();
    assert_eq!(wanted, [1, 3]);
    let mut all = cache.all();
    all.sort_by_key(|(id, ..)| *id);
    assert_eq!(
        all,
        [
            (1, Arc::new(names("a")), 999_000),
            (2, Arc::new(names("b")), 1_000_000)
        ]
    );
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    LookUp(u128),
    /// Answers all that waits: the app exists if its number is even.
    Answer,
    /// The list of all apps.
    All,
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1u64..4000).prop_map(Step::Pass),
        12 => (0u128..60).prop_map(Step::LookUp),
        4 => Just(Step::Answer),
        1 => Just(Step::All),
        1 => Just(Step::Expire),
    ]
}

/// What the model knows of an id: when its names were confirmed, if it has any; when it was looked up.
#[derive(Debug, Clone, Copy)]
struct Known {
    confirmed: Option<u64>,
    used: u64,
}

proptest! {
    /// Against a model that knows everything: names are served exactly as long as they may, nothing is asked for that
    /// nobody looked up, no bound is passed, and those go that were not used for longest.
    #[test]
    fn like_a_model(steps in proptest::collection::vec(step(), 1..200), max in 5usize..50) {
        let cache = cache(max);
        let mut now = 1_000_000;
        let mut model: BTreeMap<u128, Known> = BTreeMap::new();
        let mut looked_up = std::collections::BTreeSet::new();
        let exists = |id: u128| id.is_multiple_of(2);
        for step in steps {
            match step {
                Step::Pass(seconds) => {
                    now += seconds;
                    cache.set_clock(now);
                }
                Step::LookUp(id) => {
                    let got = app(&cache, id);
                    looked_up.insert(id);
                    let known = model.get_mut(&id);
                    let fresh = known.as_ref().and_then(|known| known.confirmed).is_some_and(|at| now - at <= EXPIRE);
                    prop_assert_eq!(got, fresh.then(|| format!("app-{id}")));
                    if let Some(known) = known {
                        known.used = now;
                    }
                }
                Step::Answer => {
                    let ids = cache.take_wanted(usize::MAX);
                    let answer = |id: &u128| (*id, if exists(*id) { told(&format!("app-{id}")) } else { Told::Unknown });
                    for id in &ids {
                        prop_assert!(looked_up.contains(id), "{} was not looked up", id);
                        let used = model.get(id).map_or(now, |known| known.used);
                        model.insert(*id, Known { confirmed: exists(*id).then_some(now), used });
                    }
                    cache.learn(ids.iter().map(answer).collect());
                    prop_assert_eq!(cache.waiting(), 0);
                }
                Step::All => {
                    let all = (0..60).filter(|id| exists(*id));
                    cache.learn_if_room(all.clone().map(|id| (id, told(&format!("app-{id}")))).collect());
                    for id in all {
                        if let Some(known) = model.get_mut(&id) {
                            known.confirmed = Some(now);
                        }
                    }
                    // Which of the others found room is not said.
                    for (id, ..) in cache.all() {
                        model.entry(id).or_insert(Known { confirmed: Some(now), used: 0 });
                    }
                }
                Step::Expire => {
                    cache.expire();
                    model.retain(|_, known| match known.confirmed {
                        Some(at) => now - at <= EXPIRE,
                        None => now - known.used <= 2 * LONGEST_DOUBT,
                    });
                }
            }
            prop_assert!(cache.len() <= max);
            // What the bound cost: the least recently used of the model.
            let kept: std::collections::BTreeSet<u128> = ids(&cache);
            let gone: Vec<_> = model.iter().filter(|(id, _)| !kept.contains(id)).map(|(_, known)| known.used).collect();
            let oldest_kept = model.iter().filter(|(id, _)| kept.contains(id)).map(|(_, known)| known.used).min();
            if let (Some(newest_gone), Some(oldest_kept)) = (gone.iter().max(), oldest_kept) {
                prop_assert!(*newest_gone <= oldest_kept);
            }
            prop_assert!(gone.is_empty() || kept.len() + gone.len() > max);
            model.retain(|id, _| kept.contains(id));
            prop_assert_eq!(kept.len(), model.len());
        }
    }
}

fn ids(cache: &Cache) -> std::collections::BTreeSet<u128> {
    cache
        .shards
        .iter()
        .flat_map(|shard| shard.map.load().keys().copied().collect::<Vec<_>>())
        .collect()
}
