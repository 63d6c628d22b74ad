//! Which place a file is read from next, by what has been seen of the places: decides, and does nothing.
//!
//! A place that refuses a file is out for that file. One that fails otherwise is asked a few times more,
//! then the next place is; once all have had their turn, the first one is asked again. A place that
//! only fails, whatever the file, is asked last from then on.

use std::sync::Arc;
use std::time::Duration;

use crate::content::Locator;
use crate::net::SourceError;

/// Failures of one file at one place before another place is asked.
const STRIKES: u32 = 3;
/// Failures of a place in a row, whatever the file, before it is asked last.
const FAILURES_IN_A_ROW: u32 = 4;
/// A place that asks to be left alone for so long is asked last.
const LONG_WAIT: Duration = Duration::from_secs(10);
/// Files that came wrong from a place before it is asked last.
const WRONG_FILES: u32 = 3;

/// One way to read a file, and what came of it.
#[derive(Debug)]
pub struct Way {
    pub locator: Locator,
    /// The source that was pinned: it lists the file, so that it is the last one to be doubted.
    pub is_pinned: bool,
    strikes: Count,
    is_refused: bool,
    /// How often the file was wrong when bytes of it had come from here.
    wrong: u32,
    pub has_served: bool,
    /// The last error.
    pub error: Option<Arc<SourceError>>,
}

/// What has been seen of a place with all files together.
#[derive(Debug, Default)]
pub struct Record {
    in_a_row: Count,
    wrong_files: u32,
    pub is_demoted: bool,
}

/// Counts failures. Reads that were under way when one was counted fail for the same reason, and are
/// not counted again: when a server dies, each of its connections does.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    failures: u32,
    /// Only reads that began at this number or later count.
    from: u64,
}

/// The numbers of all reads: which began before which.
#[derive(Debug, Default)]
pub struct Reads(u64);

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    Nothing,
    /// The place is asked last from now on.
    Demoted,
}

impl Reads {
    /// The number of a read that begins now.
    pub fn begin(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

impl Count {
    /// Counts a failure of read number `read`; returns whether it counts.
    fn add(&mut self, read: u64, reads: &Reads, by: u32) -> bool {
        let counts = read >= self.from;
        if counts {
            self.failures += by;
            self.from = reads.0 + 1;
        }
        counts
    }
}

impl Way {
    pub fn new(locator: Locator, is_pinned: bool) -> Self {
        Self {
            locator,
            is_pinned,
            strikes: Count::default(),
            is_refused: false,
            wrong: 0,
            has_served: false,
            error: None,
        }
    }

    /// Bytes come from here.
    pub fn serves(&mut self) {
        self.has_served = true;
    }

    /// A whole range has come.
    pub fn worked(&mut self, record: &mut Record) {
        self.strikes.failures = 0;
        record.in_a_row.failures = 0;
    }

    /// The reader has dropped read number `read` before its end.
    pub fn given_up(&mut self, read: u64, reads: &Reads) {
        self.strikes.add(read, reads, 1);
    }

    /// Read number `read` has failed.
    pub fn failed(
        &mut self,
        record: &mut Record,
        read: u64,
        reads: &Reads,
        error: &Arc<SourceError>,
    ) -> News {
        self.error = Some(error.clone());
        match error.as_ref() {
            // It says itself that asking again has no use for a while, whatever the file.
            SourceError::RateLimited { wait, .. } => {
                self.strikes.add(read, reads, STRIKES);
                return record.demote_if(*wait >= LONG_WAIT);
            }
            error if error.is_transient() => _ = self.strikes.add(read, reads, 1),
            _ => self.is_refused = true,
        }
        record.in_a_row.add(read, reads, 1);
        record.demote_if(record.in_a_row.failures >= FAILURES_IN_A_ROW)
    }
}

impl Record {
    fn demote_if(&mut self, is_due: bool) -> News {
        if is_due && !std::mem::replace(&mut self.is_demoted, true) {
            News::Demoted
        } else {
            News::Nothing
        }
    }
}

/// Which of `ways` to take next; none where each place has refused.
pub fn next(ways: &[Way], records: &[Record]) -> Option<usize> {
    let is_doubtful = ways.iter().any(|way| way.wrong > 0);
    let open = ways.iter().enumerate().filter(|(_, way)| !way.is_refused);
    let best = open.min_by_key(|(n, way)| {
        let is_demoted = records[way.locator.place].is_demoted;
        // After wrong bytes, what has listed the file is believed most.
        let is_doubted = is_doubtful && !way.is_pinned;
        (way.wrong, is_demoted, way.strikes.failures / STRIKES, is_doubted, *n)
    });
    best.map(|(n, _)| n)
}

/// Whether each place that has not refused has been asked as often as makes sense for now.
pub fn all_had_their_turn(ways: &[Way]) -> bool {
    ways.iter().all(|way| way.is_refused || way.strikes.failures >= STRIKES)
}

/// Whether `way`, which has just worked, would be taken as well if nothing was known of the file.
pub fn is_as_if_new(ways: &[Way], records: &[Record], way: usize) -> bool {
    let is_demoted = |way: &Way| records[way.locator.place].is_demoted;
    let first = (0..ways.len()).min_by_key(|n| (is_demoted(&ways[*n]), *n));
    first == Some(way) && ways.iter().all(|way| way.wrong == 0)
}

/// Whether the pinned source has refused the file for good, and nothing speaks for another way to it: none
/// has brought a byte, and each has had its turn.
pub fn is_refused(ways: &[Way]) -> bool {
    let is_out = |way: &Way| {
        way.is_refused || (!way.is_pinned && !way.has_served && way.strikes.failures >= STRIKES)
    };
    ways.iter().all(is_out)
}

/// Whether `ways` leaves a choice.
pub fn is_only_one_left(ways: &[Way]) -> bool {
    ways.iter().filter(|way| !way.is_refused).count() <= 1
}

/// The file was wrong. Whichever places bytes of it came from are asked last for it from now on, and
/// are returned; where none came in this run, that is the one that would be asked next.
pub fn distrust(ways: &mut [Way], records: &mut [Record]) -> Vec<usize> {
    let served = ways.iter().enumerate().filter(|(_, way)| way.has_served);
    let mut blamed: Vec<usize> = served.map(|(n, _)| n).collect();
    if blamed.is_empty() {
        blamed.extend(next(ways, records));
    }
    let is_sure = blamed.len() == 1;
    for n in &blamed {
        let way = &mut ways[*n];
        way.wrong += 1;
        way.has_served = false;
        way.error = Some(Arc::new(SourceError::Contradiction(
            "the bytes from here are not what the source publishes".into(),
        )));
        let record = &mut records[way.locator.place];
        record.wrong_files += u32::from(is_sure && !way.is_pinned);
        record.demote_if(record.wrong_files >= WRONG_FILES);
    }
    blamed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RelPath, RemoteFile};

    /// Two other places, and the source.
    struct Scene {
        ways: Vec<Way>,
        records: Vec<Record>,
        reads: Reads,
    }

    /// What happens to a read of the place that is asked.
    #[derive(Clone, Copy)]
    enum Does {
        Work,
        Break,
        Limit,
        Refuse,
        GiveUp,
        /// Brings a whole file, which is wrong.
        Lie,
    }

    use Does::{Break, GiveUp, Lie, Limit, Refuse, Work};

    impl Scene {
        fn new() -> Self {
            let path = RelPath::parse("a").expect("a path");
            let file = RemoteFile { path, size: 9, digest: None, validator: None, xet_hash: None };
            let way = |place| Way::new(Locator { place, file: file.clone() }, place == 2);
            Self {
                ways: (0..3).map(way).collect(),
                records: (0..3).map(|_| Record::default()).collect(),
                reads: Reads::default(),
            }
        }

        fn next(&self) -> Option<usize> {
            next(&self.ways, &self.records)
        }

        fn fails(&mut self, n: usize, read: u64, error: SourceError) -> News {
            let (way, record) = (&mut self.ways[n], &mut self.records[n]);
            way.failed(record, read, &self.reads, &Arc::new(error))
        }

        fn does(&mut self, n: usize, what: Does) {
            let read = self.reads.begin();
            match what {
                Work => {
                    self.ways[n].serves();
                    self.ways[n].worked(&mut self.records[n]);
                }
                Break => _ = self.fails(n, read, SourceError::Unreachable("x".into())),
                Refuse => _ = self.fails(n, read, SourceError::NotFound("x".into())),
                Limit => {
                    let wait = Duration::from_secs(9);
                    self.fails(n, read, SourceError::RateLimited { host: "x".into(), wait });
                }
                GiveUp => self.ways[n].given_up(read, &self.reads),
                Lie => {
                    self.ways[n].serves();
                    self.ways[n].worked(&mut self.records[n]);
                    distrust(&mut self.ways, &mut self.records);
                }
            }
        }
    }

    #[test]
    fn the_first_place_that_works_is_asked_and_the_next_one_takes_over() {
        // What each read does, and which places are asked.
        for (name, reads, asked) in [
            ("all is well", vec![Work, Work], vec![0, 0, 0]),
            ("one that refuses", vec![Refuse, Work, Work], vec![0, 1, 1, 1]),
            ("all that refuse", vec![Refuse, Refuse, Refuse], vec![0, 1, 2]),
            ("one blip", vec![Break, Work, Break, Work], vec![0; 5]),
            ("three in a row", vec![Break, Break, Break, Work], vec![0, 0, 0, 1, 1]),
            ("too slow", vec![GiveUp, GiveUp, GiveUp, Work], vec![0, 0, 0, 1, 1]),
            ("a limited rate", vec![Limit, Work], vec![0, 1, 1]),
            ("limited everywhere", vec![Limit; 3], vec![0, 1, 2, 0]),
            ("refused, then broken", vec![Refuse, Break, Break, Break], vec![0, 1, 1, 1, 2]),
            (
                "all broken: each in turn, and the first again",
                vec![Break; 9],
                vec![0, 0, 0, 1, 1, 1, 2, 2, 2, 0],
            ),
            // The source is believed most after that.
            ("wrong bytes", vec![Lie, Work], vec![0, 2, 2]),
            ("wrong bytes of the source as well", vec![Lie, Lie, Work], vec![0, 2, 1, 1]),
            ("wrong bytes everywhere", vec![Lie, Lie, Lie], vec![0, 2, 1, 2]),
            ("wrong, and the source refuses", vec![Lie, Refuse, Work], vec![0, 2, 1, 1]),
            ("wrong, and the source is down", vec![Lie, Break, Break, Break], vec![0, 2, 2, 2, 1]),
        ] {
            let mut scene = Scene::new();
            let mut found = Vec::new();
            for read in &reads {
                let n = scene.next().expect(name);
                found.push(n);
                scene.does(n, *read);
            }
            found.extend(scene.next());
            assert_eq!(found, asked, "{name}");
        }
    }

    #[test]
    fn connections_that_die_together_are_one_failure() {
        let mut scene = Scene::new();
        let begun: Vec<u64> = (0..16).map(|_| scene.reads.begin()).collect();
        for read in begun {
            scene.fails(0, read, SourceError::Unreachable("x".into()));
        }
        assert_eq!(scene.next(), Some(0));
        (0..2).for_each(|_| scene.does(0, Break));
        assert_eq!(scene.next(), Some(1));
    }

    #[test]
    fn a_place_that_only_fails_is_asked_last_whatever_the_file() {
        let mut scene = Scene::new();
        let news: Vec<News> = (0..6)
            .map(|_| {
                let read = scene.reads.begin();
                scene.fails(0, read, SourceError::Unreachable("x".into()))
            })
            .collect();
        assert_eq!(news.iter().filter(|news| **news == News::Demoted).count(), 1);
        assert_eq!(news[3], News::Demoted);
        let other = Scene::new();
        assert_eq!(next(&other.ways, &scene.records), Some(1));
        // With nothing else left, it is asked all the same.
        let mut other = other;
        std::mem::swap(&mut other.records, &mut scene.records);
        other.does(1, Refuse);
        other.does(2, Refuse);
        assert_eq!(other.next(), Some(0));
    }

    #[test]
    fn a_place_that_wants_to_be_left_alone_for_long_is_asked_last_whatever_the_file() {
        for (seconds, first) in [(9, 0), (10, 1), (3_600, 1)] {
            let mut scene = Scene::new();
            let read = scene.reads.begin();
            let wait = Duration::from_secs(seconds);
            scene.fails(0, read, SourceError::RateLimited { host: "x".into(), wait });
            assert_eq!(next(&Scene::new().ways, &scene.records), Some(first), "{seconds}");
        }
    }

    #[test]
    fn a_place_that_works_now_and_then_is_not_asked_last() {
        let mut scene = Scene::new();
        for n in 0..40 {
            scene.does(0, if n % 3 == 2 { Work } else { Break });
        }
        assert!(!scene.records[0].is_demoted);
    }

    #[test]
    fn wrong_bytes_of_several_places_are_held_against_each() {
        let mut scene = Scene::new();
        scene.does(0, Work);
        scene.does(1, Work);
        assert_eq!(distrust(&mut scene.ways, &mut scene.records), [0, 1]);
        assert_eq!(scene.next(), Some(2));
        // It cannot be told which one it was.
        assert!(scene.records.iter().all(|record| record.wrong_files == 0));
    }

    #[test]
    fn a_place_with_several_wrong_files_is_asked_last() {
        let mut records: Vec<Record> = (0..3).map(|_| Record::default()).collect();
        for _ in 0..WRONG_FILES {
            let mut scene = Scene::new();
            std::mem::swap(&mut scene.records, &mut records);
            scene.does(0, Lie);
            std::mem::swap(&mut scene.records, &mut records);
        }
        assert_eq!(next(&Scene::new().ways, &records), Some(1));
    }

    #[test]
    fn wrong_bytes_from_before_this_run_make_the_next_place_the_first() {
        let mut scene = Scene::new();
        assert_eq!(distrust(&mut scene.ways, &mut scene.records), [0]);
        assert_eq!(scene.next(), Some(2));
    }
}
