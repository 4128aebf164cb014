//! Whether an answer has the shape that the OpenAPI document gives it.

use serde_json::{Map, Value, json};

/// The document, as it is committed.
pub fn document() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../api/openapi.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Says where a value is not as its schema says.
pub fn check(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let pointer = name.trim_start_matches('#');
        let target = document.pointer(pointer).ok_or_else(|| format!("{at}: no schema {name}"))?;
        return check(document, target, value, at);
    }
    if schema["allOf"].is_array() {
        return check(document, &joined(document, schema)?, value, at);
    }
    if let Some(branches) = schema["oneOf"].as_array() {
        let tried: Vec<_> = branches.iter().map(|branch| check(document, branch, value, at)).collect();
        return match tried.iter().filter(|tried| tried.is_ok()).count() {
            1 => Ok(()),
            count => Err(format!("{at}: {count} of {} branches fit: {tried:?}", branches.len())),
        };
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        return Err(format!("{at}: {value} is none of {allowed:?}"));
    }
    of_type(&schema["type"], value).map_err(|expected| format!("{at}: {value} is not {expected}"))?;
    match value {
        Value::Object(fields) => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            for name in required {
                fields.get(name).ok_or_else(|| format!("{at}: no `{name}`"))?;
            }
            for (name, field) in fields {
                let at = format!("{at}.{name}");
                let schema = match (&schema["properties"][name], &schema["additionalProperties"]) {
                    (Value::Null, Value::Null) => return Err(format!("{at} is not in the document")),
                    (Value::Null, any) => any,
                    (known, _) => known,
                };
                check(document, schema, field, &at)?;
            }
            Ok(())
        }
        Value::Array(items) => {
            let mut items = items.iter().enumerate();
            items.try_for_each(|(i, item)| check(document, &schema["items"], item, &format!("{at}[{i}]")))
        }
        _ => Ok(()),
    }
}

/// Makes one schema of an object of those that are all said of it: what one of them allows is in the document.
fn joined(document: &Value, schema: &Value) -> Result<Value, String> {
    if let Some(name) = schema["$ref"].as_str() {
        let target = document.pointer(name.trim_start_matches('#'));
        return joined(document, target.ok_or_else(|| format!("no schema {name}"))?);
    }
    let Some(parts) = schema["allOf"].as_array() else { return Ok(schema.clone()) };
    let (mut required, mut properties) = (Vec::new(), Map::new());
    for part in parts {
        let part = joined(document, part)?;
        required.extend(part["required"].as_array().into_iter().flatten().cloned());
        properties.extend(
            part["properties"].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())),
        );
    }
    Ok(json!({"type": "object", "required": required, "properties": properties}))
}

fn of_type(expected: &Value, value: &Value) -> Result<(), String> {
    let names: Vec<&str> = match expected {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        Value::String(name) => vec![name],
        _ => return Ok(()),
    };
    let fits = |name: &&str| match *name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    };
    names.iter().any(fits).then_some(()).ok_or_else(|| names.join(" or "))
}

#[test]
fn a_wrong_shape_is_noticed() {
    let document = document();
    let check = |name: &str, text: &str| {
        let schema = json!({"$ref": format!("#/components/schemas/{name}")});
        check(&document, &schema, &serde_json::from_str(text).unwrap(), "it")
    };
    assert_eq!(check("Version", r#"{"version": "1", "machine": "x", "host": "m1"}"#), Ok(()));
    for (text, why) in [
        (r#"{"version": "1", "machine": "x"}"#, "it: no `host`"),
        (r#"{"version": 1, "machine": "x", "host": "m1"}"#, "it.version: 1 is not string"),
        (r#"{"version": "1", "machine": "x", "host": "m1", "more": 1}"#, "it.more is not in the document"),
    ] {
        assert_eq!(check("Version", text), Err(why.to_owned()));
    }
    // Of two schemas that are both said of it.
    let adopted = |more: &str| {
        format!(r#"{{"unit": "a", "text": "", "fragment": "", "moves": [], "kept": "", "run": 1{more}}}"#)
    };
    assert_eq!(check("AdoptedUnit", &adopted(r#", "generation": 1, "stays": ["b"]"#)), Ok(()));
    for (more, why) in [
        ("", "it: no `generation`"),
        (r#", "generation": 1, "stays": [1]"#, "it.stays[0]: 1 is not string"),
        (r#", "generation": 1, "more": 1"#, "it.more is not in the document"),
    ] {
        assert_eq!(check("AdoptedUnit", &adopted(more)), Err(why.to_owned()));
    }
}
