//! A reading in the text format of Prometheus, version 0.0.4. Names follow its conventions: base units, and
//! `_total` behind what only grows.

use std::fmt::{Display, Write};
use std::time::SystemTime;

use super::counts::{End, Reading, Sums};

/// What starts the names that tell of the run that has ended last.
const LAST: &str = "weightlift_last_run_";

/// Each metric, its type and what it is. Every sample has `labels` as well.
pub fn text(reading: &Reading, labels: &[(String, String)]) -> String {
    let mut out = Text { labels, text: String::new() };
    let version = env!("CARGO_PKG_VERSION");
    out.metric("info", "gauge", "The program that runs.");
    out.sample("info", &[("version", version), ("command", reading.command)], 1);
    out.metric("run_start_timestamp_seconds", "gauge", "When the run began, since 1970.");
    out.sample("run_start_timestamp_seconds", &[], seconds(reading.started_at));
    out.metric("run_duration_seconds", "gauge", "How long the run has taken so far.");
    out.sample("run_duration_seconds", &[], reading.elapsed.as_secs_f64());
    out.metric("models", "gauge", "Models that the run is about.");
    out.sample("models", &[], reading.all_models);
    out.metric("complete_models", "gauge", "Models of them that are complete.");
    out.sample("complete_models", &[], reading.complete_models);
    for (name, help, of) in SUMS {
        out.metric(name, "counter", help);
        for (source, sums) in &reading.sources {
            out.sample(name, &[("source", source)], of(sums));
        }
    }
    out.metric("wanted_bytes", "gauge", "Size of what is fetched at the moment.");
    out.sample("wanted_bytes", &[], reading.at_work.iter().map(|it| it.total_bytes).sum::<u64>());
    out.metric("present_bytes", "gauge", "Bytes of that which are on the volume.");
    out.sample("present_bytes", &[], reading.at_work.iter().map(|it| it.done_bytes).sum::<u64>());
    out.metric("receive_bytes_per_second", "gauge", "Rate from the network over the last second.");
    out.sample("receive_bytes_per_second", &[], reading.bytes_per_second);
    out.metric("connections", "gauge", "Connections on which an answer is being read.");
    out.sample("connections", &[], reading.connections);
    out.metric("retries_total", "counter", "Requests that were made again, by reason.");
    for (reason, count) in &reading.retries {
        out.sample("retries_total", &[("reason", reason)], count);
    }
    out.metric(
        "phase_seconds_total",
        "counter",
        "Time that models have spent in each phase; of models at the same time each counts.",
    );
    for (phase, time) in &reading.phases {
        out.sample("phase_seconds_total", &[("phase", phase)], time.as_secs_f64());
    }
    for (name, help, value) in last(reading) {
        let name = format!("last_run_{name}");
        out.metric(&name, "gauge", help);
        out.sample(&name, &[], value);
    }
    out.text
}

type Sum = fn(&Sums) -> u64;
const SUMS: [(&str, &str, Sum); 5] = [
    ("fetched_bytes_total", "Bytes that came over the network, thrown away ones included.", |it| {
        it.fetched_bytes
    }),
    ("reused_bytes_total", "Bytes that were on the volume already.", |it| it.reused_bytes),
    ("sent_bytes_total", "Bytes that were sent to a bucket.", |it| it.sent_bytes),
    ("read_bytes_total", "Bytes that were read again: hashed, re-checked, copied.", |it| {
        it.read_bytes
    }),
    ("complete_files_total", "Files that are complete and verified.", |it| it.files),
];

/// What is known of the run that has ended last: this one, or the one before while this one runs.
fn last(reading: &Reading) -> Vec<(&'static str, &'static str, f64)> {
    let now = |End { class, .. }: &End| {
        let code = class.exit_code();
        let is_complete = u8::from(code == 0);
        [
            f64::from(code),
            f64::from(is_complete),
            seconds(reading.at),
            reading.elapsed.as_secs_f64(),
        ]
    };
    let found = reading.end.as_ref().map(now);
    let before = |name: &str| {
        reading.before.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    };
    let each = LAST_RUN.iter().enumerate();
    each.filter_map(|(n, (name, help))| {
        let value = found.map(|found| found[n]).or_else(|| before(name))?;
        Some((*name, *help, value))
    })
    .collect()
}

const LAST_RUN: [(&str, &str); 4] = [
    ("exit_code", "Exit code of the run that has ended last."),
    ("success", "1 if that was 0."),
    ("end_timestamp_seconds", "When that run has ended, since 1970."),
    ("duration_seconds", "How long that run has taken."),
];

/// What the metrics of an earlier run say of the one that has ended last.
pub fn last_of(text: &str) -> Vec<(String, f64)> {
    let of_line = |line: &str| {
        let (name, value) = line.strip_prefix(LAST)?.rsplit_once(' ')?;
        let name = name.split('{').next()?;
        let is_known = LAST_RUN.iter().any(|(known, _)| *known == name);
        let value = value.trim().parse::<f64>().ok().filter(|value| value.is_finite())?;
        is_known.then(|| (name.to_owned(), value))
    };
    text.lines().filter_map(of_line).collect()
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

struct Text<'a> {
    labels: &'a [(String, String)],
    text: String,
}

impl Text<'_> {
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        let _ =
            writeln!(self.text, "# HELP weightlift_{name} {help}\n# TYPE weightlift_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let of_run = self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let labels = labels.iter().copied().chain(of_run);
        let labels: Vec<String> =
            labels.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "weightlift_{name}{labels} {value}");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_run_is_found_again_in_what_was_written() {
        let text = "# TYPE weightlift_last_run_exit_code gauge\nweightlift_last_run_exit_code 12\n\
                    weightlift_last_run_success 0\nweightlift_last_run_other 1\n\
                    weightlift_last_run_duration_seconds{model=\"a b\",x=\"\"} 2.5\n\
                    weightlift_last_run_end_timestamp_seconds NaN\nweightlift_models 3\n";
        let expected = [("exit_code", 12.0), ("success", 0.0), ("duration_seconds", 2.5)];
        assert_eq!(last_of(text), expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn a_label_cannot_end_its_line() {
        assert_eq!(escaped("a\"b\\c\nd"), r#"a\"b\\c\nd"#);
    }
}
