//! The JSON Schemas in docs, held against every line that a run of the tests prints. Knows the words that they are
//! written with, and no others; tests/cli/json.rs holds it against a whole validator.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::skip;

/// A schema in docs.
pub struct Schema {
    path: String,
    whole: Value,
}

pub static OUTPUT: LazyLock<Schema> = LazyLock::new(|| Schema::named("output"));
pub static LOG: LazyLock<Schema> = LazyLock::new(|| Schema::named("log"));
pub static TERMINATION: LazyLock<Schema> = LazyLock::new(|| Schema::named("termination"));

impl Schema {
    fn named(name: &str) -> Self {
        let path = format!("{}/docs/{name}.schema.json", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(Path::new(&path)).expect(&path);
        Self { whole: serde_json::from_str(&text).expect(&path), path }
    }

    /// The names in `$defs`.
    pub fn parts(&self) -> Vec<&str> {
        self.whole["$defs"].as_object().unwrap().keys().map(String::as_str).collect()
    }

    /// The fields that one part describes.
    pub fn fields(&self, part: &str) -> BTreeSet<&str> {
        let fields = &self.part(&format!("#/$defs/{part}"))["properties"];
        fields.as_object().unwrap().keys().map(String::as_str).collect()
    }

    /// What is wrong with `value`.
    pub fn problem(&self, value: &Value) -> Option<String> {
        self.check(&self.whole, value, "").err()
    }

    /// The same by one part of the schema.
    pub fn problem_by(&self, part: &str, value: &Value) -> Option<String> {
        self.check(self.part(&format!("#/$defs/{part}")), value, "").err()
    }

    #[track_caller]
    pub fn assert_holds(&self, value: &Value) {
        assert_eq!(self.problem(value), None, "{value}");
    }

    /// Holds this reader of schemas against a whole one, by the part that is named with each line: both accept the line, and
    /// refuse it with a field more, or without one that must be there.
    pub fn assert_agrees(&self, lines: &[(&str, Value)]) {
        let mut cases = Vec::new();
        for (command, line) in lines {
            cases.push((*command, line.clone()));
            let mut more = line.clone();
            more["nonsense"] = 1.into();
            cases.push((*command, more));
            for field in line.as_object().unwrap().keys() {
                let mut less = line.clone();
                less.as_object_mut().unwrap().remove(field);
                cases.push((*command, less));
                let mut other = line.clone();
                other[field] = Value::Null;
                cases.push((*command, other));
            }
        }
        let ours = cases.iter().map(|(command, line)| match *command {
            "" => self.problem(line).is_none(),
            part => self.problem_by(part, line).is_none(),
        });
        let ours: Vec<bool> = ours.collect();
        let wrong = ours.iter().filter(|is_valid| !**is_valid).count();
        assert!(wrong > 2 * lines.len(), "{wrong} of {} are refused", cases.len());
        let python =
            || Command::new(std::env::var_os("WEIGHTLIFT_TEST_PYTHON").unwrap_or("python3".into()));
        let has = python().args(["-c", "import jsonschema"]).stderr(Stdio::null()).status();
        if !has.is_ok_and(|it| it.success()) {
            skip("this needs Python with jsonschema");
            return;
        }
        let script = "
import json, sys, jsonschema
schema = json.load(open(sys.argv[1]))
jsonschema.Draft202012Validator.check_schema(schema)
def of(part):
    whole = dict(schema)
    if part:
        whole.pop('anyOf')
        whole['$ref'] = '#/$defs/' + part
    return jsonschema.Draft202012Validator(whole)
validators = {}
for part, line in json.load(open(sys.argv[2])):
    if part not in validators:
        validators[part] = of(part)
    print(validators[part].is_valid(line))
";
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cases.json");
        std::fs::write(&file, serde_json::to_string(&cases).unwrap()).unwrap();
        let output = python().args(["-c", script, &self.path]).arg(file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let theirs = String::from_utf8_lossy(&output.stdout);
        let theirs: Vec<bool> = theirs.lines().map(|line| line == "True").collect();
        assert_eq!(ours.len(), theirs.len());
        for ((case, ours), theirs) in cases.iter().zip(ours).zip(theirs) {
            assert_eq!(ours, theirs, "{case:?}");
        }
    }

    fn part(&self, pointer: &str) -> &Value {
        self.whole.pointer(pointer.strip_prefix('#').expect(pointer)).expect(pointer)
    }

    fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let schema = schema.as_object().expect("a schema is an object");
        let ensure = |is_so: bool, word: &str| match is_so {
            true => Ok(()),
            false => Err(format!("{at}: {value} is not {word} {}", schema[word])),
        };
        for (word, rule) in schema {
            match word.as_str() {
                "$schema" | "$id" | "$defs" | "title" | "description" => {}
                "$ref" => self.check(self.part(rule.as_str().unwrap()), value, at)?,
                "type" => ensure(is_of_type(rule.as_str().unwrap(), value), word)?,
                "const" => ensure(rule == value, word)?,
                "enum" => ensure(rule.as_array().unwrap().contains(value), word)?,
                "minimum" => ensure(value.as_f64() >= rule.as_f64(), word)?,
                "maximum" => ensure(value.as_f64() <= rule.as_f64(), word)?,
                "format" => ensure(rule == "date-time" && is_time(value), word)?,
                "items" => {
                    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(rule, item, &format!("{at}/{n}"))?;
                    }
                }
                "required" => {
                    let names = rule.as_array().unwrap().iter().filter_map(Value::as_str);
                    for name in names {
                        value.get(name).ok_or_else(|| format!("{at}: {name} is missing"))?;
                    }
                }
                "dependentRequired" => {
                    let given = rule.as_object().unwrap().iter();
                    let given = given.filter(|(name, _)| value.get(name.as_str()).is_some());
                    for name in given.flat_map(|(_, names)| names.as_array().unwrap()) {
                        let name = name.as_str().unwrap();
                        value.get(name).ok_or_else(|| format!("{at}: {name} is missing"))?;
                    }
                }
                "properties" => self.check_fields(schema, value, at)?,
                "additionalProperties" if schema.contains_key("properties") => {}
                "additionalProperties" => {
                    for (name, field) in value.as_object().into_iter().flatten() {
                        self.check(rule, field, &format!("{at}/{name}"))?;
                    }
                }
                "anyOf" | "oneOf" => self.check_choice(word == "oneOf", rule, value, at)?,
                unknown => panic!("{unknown} is not known here"),
            }
        }
        Ok(())
    }

    /// Each field by its own schema; all are known where nothing is additional.
    fn check_fields(&self, of: &Map<String, Value>, value: &Value, at: &str) -> Result<(), String> {
        assert_eq!(of.get("additionalProperties"), Some(&Value::Bool(false)), "{at} is open");
        for (name, field) in value.as_object().into_iter().flatten() {
            let rule = of["properties"].get(name);
            let rule = rule.ok_or_else(|| format!("{at}/{name} is not in the schema"))?;
            self.check(rule, field, &format!("{at}/{name}"))?;
        }
        Ok(())
    }

    fn check_choice(
        &self,
        is_one: bool,
        of: &Value,
        value: &Value,
        at: &str,
    ) -> Result<(), String> {
        let tried = of.as_array().unwrap().iter().map(|rule| self.check(rule, value, at));
        let (fits, not): (Vec<_>, Vec<_>) = tried.partition(Result::is_ok);
        match fits.len() {
            0 => Err(not.into_iter().filter_map(Result::err).collect::<Vec<_>>().join("; or ")),
            2.. if is_one => Err(format!("{at}: fits {} of them", fits.len())),
            _ => Ok(()),
        }
    }
}

fn is_of_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        unknown => panic!("{unknown} is not known here"),
    }
}

/// `2026-11-28T23:08:01Z`
fn is_time(value: &Value) -> bool {
    let like = |(found, form): (u8, u8)| match form {
        b'0' => found.is_ascii_digit(),
        form => found == form,
    };
    let (text, form) = (value.as_str().unwrap_or_default(), "0000-00-00T00:00:00Z");
    text.len() == form.len() && text.bytes().zip(form.bytes()).all(like)
}
