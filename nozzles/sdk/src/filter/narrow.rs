//! What an expression says about kinds and sources without an event: so that dopplers need not send what it would refuse.

use loggregator_envelope::{Kind, KindSet};

use super::{Expr, Quantity, TextTest};
use crate::fields::Field;

/// For which kinds an expression can hold, and for which it can fail to. Both may be too large, never too small.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kinds {
    pub holds: KindSet,
    pub fails: KindSet,
}

const ALL: Kinds = Kinds {
    holds: KindSet::ALL,
    fails: KindSet::ALL,
};

impl Expr {
    pub(super) fn kinds(&self) -> Kinds {
        match self {
            Expr::Const(true) => Kinds {
                fails: KindSet::EMPTY,
                ..ALL
            },
            Expr::Const(false) => Kinds {
                holds: KindSet::EMPTY,
                ..ALL
            },
            Expr::Not(inside) => {
                let Kinds { holds, fails } = inside.kinds();
                Kinds {
                    holds: fails,
                    fails: holds,
                }
            }
            Expr::And(parts) => parts.iter().map(Expr::kinds).fold(
                Kinds {
                    holds: KindSet::ALL,
                    fails: KindSet::EMPTY,
                },
                |all, part| Kinds {
                    holds: all.holds.intersection(part.holds),
                    fails: all.fails.union(part.fails),
                },
            ),
            Expr::Or(parts) => parts.iter().map(Expr::kinds).fold(
                Kinds {
                    holds: KindSet::EMPTY,
                    fails: KindSet::ALL,
                },
                |all, part| Kinds {
                    holds: all.holds.union(part.holds),
                    fails: all.fails.intersection(part.fails),
                },
            ),
            Expr::Text(Field::Kind, TextTest::In(names)) => of_kinds(names),
            Expr::Text(field, _) | Expr::Has(field) => Kinds {
                holds: field.kinds(),
                ..ALL
            },
            Expr::Number(quantity, ..) => Kinds {
                holds: quantity.kinds(),
                ..ALL
            },
            Expr::Sample(_) => ALL,
        }
    }

    /// The source ids for which alone it can hold. May be too many, never too few; `None`: any.
    pub(super) fn source_ids(&self) -> Option<Vec<String>> {
        match self {
            Expr::Text(Field::SourceId, TextTest::In(ids)) => Some(ids.clone()),
            Expr::And(parts) => parts
                .iter()
                .filter_map(Expr::source_ids)
                .reduce(|some, others| some.into_iter().filter(|id| others.contains(id)).collect()),
            Expr::Or(parts) => {
                let each: Option<Vec<Vec<String>>> = parts.iter().map(Expr::source_ids).collect();
                let mut all = each?.concat();
                all.sort();
                all.dedup();
                Some(all)
            }
            _ => None,
        }
    }
}

fn of_kinds(names: &[String]) -> Kinds {
    let named = |kind: &Kind| names.iter().any(|name| name == kind.name());
    let (holds, fails): (Vec<Kind>, Vec<Kind>) = Kind::EACH.into_iter().partition(named);
    Kinds {
        holds: holds.into_iter().collect(),
        fails: fails.into_iter().collect(),
    }
}

impl Quantity {
    fn kinds(self) -> KindSet {
        match self {
            Quantity::DurationMs => KindSet::of(Kind::Timer),
            Quantity::Delta | Quantity::Total => KindSet::of(Kind::Counter),
            Quantity::Value => KindSet::of(Kind::Gauge),
            Quantity::Bytes => KindSet::ALL,
        }
    }
}
