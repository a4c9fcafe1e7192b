//! The choice of versions, for the brokers there are and for those there should not be.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::protocol::api_versions::{ApiRange, ApiVersionsResponse, NegotiationError, Versions};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::header::ApiKey;
use crate::protocol::release::Release;
use crate::protocol::{metadata, produce};

const PRODUCE: i16 = 0;
const METADATA: i16 = 3;

/// Kafka's releases: (Produce, Metadata) offered, (Produce, Metadata) chosen.
type Row = (&'static str, (i16, i16), (i16, i16), (i16, i16));
const RELEASES: [Row; 11] = [
    ("0.10.0", (0, 2), (0, 1), (2, 1)),
    ("0.10.2", (0, 2), (0, 2), (2, 2)),
    ("0.11.0", (0, 3), (0, 4), (3, 4)),
    ("1.0", (0, 5), (0, 5), (5, 5)),
    ("2.0", (0, 6), (0, 6), (6, 6)),
    ("2.4", (0, 8), (0, 9), (8, 9)),
    ("2.8", (0, 9), (0, 11), (9, 11)),
    ("3.4", (0, 9), (0, 12), (9, 12)),
    ("3.9", (0, 11), (0, 12), (11, 12)),
    ("4.0", (0, 12), (0, 13), (12, 13)),
    ("4.3", (0, 13), (0, 13), (13, 13)),
];

fn versions(produce: i16, metadata: i16) -> Versions {
    Versions { produce, metadata, init_producer_id: None, sasl_authenticate: None }
}

#[test]
fn idempotence_is_there_where_the_broker_offers_it_in_a_version_spoken_here() {
    for (offered, chosen) in [((0, 0), Some(0)), ((0, 6), Some(5)), ((6, 7), None)] {
        let answer = offer(&[(PRODUCE, 0, 13), (METADATA, 0, 13), (22, offered.0, offered.1)]);
        assert_eq!(Versions::negotiate(&answer).unwrap().init_producer_id, chosen);
    }
}

#[test]
fn each_broker_gets_the_highest_versions_it_speaks() {
    let unreleased = [
        ("4.3, honest about its minimum", (3, 13), (0, 13), (13, 13)),
        ("a later one", (5, 20), (4, 30), (13, 13)),
    ];
    for (release, produce, metadata, (produce_chosen, metadata_chosen)) in
        RELEASES.into_iter().chain(unreleased)
    {
        let chosen = Versions::negotiate(&offer(&[
            (METADATA, metadata.0, metadata.1),
            (18, 0, 4),
            (PRODUCE, produce.0, produce.1),
        ]));
        let expected = versions(produce_chosen, metadata_chosen);
        assert_eq!(chosen, Ok(expected), "Kafka {release}");
    }
}

#[test]
fn a_release_that_is_not_asked_gets_what_it_would_be_asked_for() {
    for (release, _, _, (produce, metadata)) in RELEASES {
        let release = release.parse::<Release>().unwrap();
        let idempotent = release >= "0.11".parse().unwrap();
        let authenticates = release >= "1.0".parse().unwrap();
        let tells_lifetime = release >= "2.2".parse().unwrap();
        let expected = Versions {
            init_producer_id: idempotent.then_some(0),
            sasl_authenticate: authenticates.then_some(tells_lifetime.into()),
            ..versions(produce, metadata)
        };
        assert_eq!(release.versions(), expected, "{release:?}");
    }
    for (release, produce, metadata) in [
        ("0.8", 0, 0),
        ("0.8.2.2", 0, 0),
        ("0.9.0", 0, 0),
        ("0.9.0.1", 0, 0),
        ("0.10.0.1", 2, 1),
        ("0.11.0.3", 3, 4),
        ("1.1.1", 5, 5),
        ("2.3.1", 7, 7),
        ("4.4.0", 13, 13),
        ("17.0", 13, 13),
    ] {
        let chosen = release.parse::<Release>().unwrap().versions();
        assert_eq!((chosen.produce, chosen.metadata), (produce, metadata), "{release}");
    }
}

#[test]
fn what_is_no_release_is_refused() {
    for text in [
        "",
        "1",
        "0.7.2",
        "0.8.",
        ".8",
        "0..8",
        "0.8.2.2.1",
        "0.8.2-beta",
        "v2.8",
        "2.8 ",
        "+2.8",
        "2.65536",
    ] {
        assert!(text.parse::<Release>().is_err(), "{text:?}");
    }
}

#[test]
fn produce_by_topic_id_needs_metadata_that_tells_ids() {
    for (metadata_max, produce) in [(9, 12), (10, 13)] {
        let chosen = Versions::negotiate(&offer(&[(PRODUCE, 0, 13), (METADATA, 0, metadata_max)]));
        assert_eq!(chosen, Ok(versions(produce, metadata_max)));
    }
    let only_by_id = Versions::negotiate(&offer(&[(PRODUCE, 13, 13), (METADATA, 0, 9)]));
    assert_eq!(
        only_by_id,
        Err(NegotiationError::NoCommonVersion {
            api: ApiKey::Produce,
            offered: (13, 13),
            needed: (0, 12),
        })
    );
}

#[test]
fn brokers_without_a_version_of_ours_are_named_with_what_they_offer() {
    let error = Versions::negotiate(&offer(&[(PRODUCE, 14, 20), (METADATA, 0, 9)])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the broker offers Produce in versions 14 to 20, lkfk needs it in versions 0 to 12"
    );
}

#[test]
fn an_empty_list_lacks_everything() {
    let error = Versions::negotiate(&offer(&[])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the broker does not offer Metadata, lkfk needs it in versions 0 to 13"
    );
    let no_produce = Versions::negotiate(&offer(&[(METADATA, 0, 13)])).unwrap_err();
    assert_eq!(no_produce, NegotiationError::Missing { api: ApiKey::Produce, needed: (0, 13) });
}

#[test]
fn a_range_upside_down_offers_nothing() {
    let error = Versions::negotiate(&offer(&[(METADATA, 9, 5), (PRODUCE, 0, 9)])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the broker offers Metadata in no version (lowest 9, highest 5), \
         lkfk needs it in versions 0 to 13"
    );
}

#[test]
fn an_api_listed_twice_offers_what_both_entries_allow() {
    let ranges = [(PRODUCE, 0, 9), (METADATA, 2, 12), (METADATA, 0, 8), (PRODUCE, 5, 11)];
    assert_eq!(Versions::negotiate(&offer(&ranges)), Ok(versions(9, 8)));

    let at_odds = [(PRODUCE, 0, 4), (METADATA, 0, 12), (PRODUCE, 5, 9)];
    assert!(Versions::negotiate(&offer(&at_odds)).is_err());
}

#[test]
fn an_error_instead_of_a_list_is_passed_on() {
    let mut answer = offer(&[(PRODUCE, 0, 9), (METADATA, 0, 9)]);
    answer.error = ErrorCode::UNSUPPORTED_VERSION;
    let error = Versions::negotiate(&answer).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the broker refused to tell its versions: UNSUPPORTED_VERSION (35)"
    );
}

proptest! {
    #[test]
    fn what_is_chosen_lies_in_every_range_the_broker_gave(
        ranges in vec((prop_oneof![Just(PRODUCE), Just(METADATA)], -2i16..16, -2i16..16), 0..6)
    ) {
        let Ok(chosen) = Versions::negotiate(&offer(&ranges)) else { return Ok(()) };
        prop_assert!(produce::VERSIONS.contains(&chosen.produce));
        prop_assert!(metadata::VERSIONS.contains(&chosen.metadata));
        for &(key, min, max) in &ranges {
            let version = if key == PRODUCE { chosen.produce } else { chosen.metadata };
            prop_assert!((min..=max).contains(&version));
        }
        // Kafka 4 offers Produce 0 to 2 and does not take them.
        let offered = ranges.iter().filter(|(key, ..)| *key == PRODUCE);
        if offered.map(|(_, _, max)| *max).min().is_some_and(|max| max >= 3) {
            prop_assert!(chosen.produce >= 3);
        }
    }
}

fn offer(ranges: &[(i16, i16, i16)]) -> ApiVersionsResponse {
    ApiVersionsResponse {
        error: ErrorCode::NONE,
        ranges: ranges.iter().map(|&(key, min, max)| ApiRange { key, min, max }).collect(),
        throttle_ms: 0,
    }
}
