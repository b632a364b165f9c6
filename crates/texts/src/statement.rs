//! Statements as CSV, out of the documents in which a history tells them: a page at a time, each of which says itself whether it is the first or the last.

use serde_json::Value;

/// The lines of a page: in front of the first one's what the columns are called and what there was, behind the last one's what there is. A
/// file without a line `closing` is not all of a statement.
#[must_use]
pub fn csv(page: &Value) -> String {
    let names: Vec<String> = list(&page["names"]).iter().map(text).collect();
    let amounts = |value: &Value| names.iter().map(|name| text(&value[name])).collect::<Vec<_>>().join(",");
    let commas = ",".repeat(names.len());
    let mut lines = Vec::new();
    if !page["opening"].is_null() {
        let changed: Vec<String> = names.iter().map(|name| format!("{name}_change")).collect();
        lines.push(format!("line,time,shard,seq,kind,lock,{},{}", changed.join(","), names.join(",")));
        lines.push(format!("opening,,,,,,{commas}{}", amounts(&page["opening"])));
    }
    for line in list(&page["lines"]) {
        let [time, shard, seq, kind, lock] =
            ["time", "shard", "seq", "kind", "lock"].map(|name| text(&line[name]));
        let (changes, after) = (amounts(&line["changes"]), amounts(&line["after"]));
        lines.push(format!("record,{time},{shard},{seq},{kind},{lock},{changes},{after}"));
    }
    if !page["closing"].is_null() {
        lines.push(format!("closing,,,,,,{commas}{}", amounts(&page["closing"])));
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A value without quotes. Of all that stands in a statement nothing has a comma, a quote or a line's end.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pages_are_the_parts_of_one_file() {
        let line = |seq: u64| {
            json!({"time": "T", "shard": 0, "seq": seq, "kind": "lock", "lock": "L",
                "changes": {"held": "5", "captured": "-1"}, "after": {"held": "6", "captured": "0"}})
        };
        let first = json!({"names": ["held", "captured"], "opening": {"held": "1", "captured": "1"},
            "lines": [line(7)], "closing": null, "has_more": true});
        let last = json!({"names": ["held", "captured"], "opening": null, "lines": [line(8)],
            "closing": {"held": "6", "captured": "0"}, "has_more": false});
        let expected = "line,time,shard,seq,kind,lock,held_change,captured_change,held,captured\n\
                        opening,,,,,,,,1,1\n\
                        record,T,0,7,lock,L,5,-1,6,0\n\
                        record,T,0,8,lock,L,5,-1,6,0\n\
                        closing,,,,,,,,6,0\n";
        assert_eq!(csv(&first) + &csv(&last), expected);
        let columns: Vec<usize> = expected.lines().map(|line| line.split(',').count()).collect();
        assert!(columns.iter().all(|count| *count == columns[0]), "{columns:?}");
    }
}
