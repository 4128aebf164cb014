//! A value of which only some fields are written.

use serde::ser::{Serialize, SerializeSeq, SerializeStruct, Serializer};

use super::Fields;

/// A value and the fields of it that are wanted.
pub(super) struct Only<'a, T: ?Sized>(&'a T, &'a Fields);

impl<'a, T: ?Sized> Only<'a, T> {
    pub(super) const fn new(value: &'a T, fields: &'a Fields) -> Self {
        Self(value, fields)
    }
}

impl<T: Serialize + ?Sized> Serialize for Only<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(Picking { serializer, fields: self.1 })
    }
}

/// Writes structures, and lists of them, with the fields that are wanted; anything else as it is.
struct Picking<'a, S> {
    serializer: S,
    fields: &'a Fields,
}

/// A list of which each item is picked from, or a structure.
struct Parts<'a, S> {
    parts: S,
    fields: &'a Fields,
}

impl<S: SerializeSeq> SerializeSeq for Parts<'_, S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.parts.serialize_element(&Only(value, self.fields))
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.parts.end()
    }
}

impl<S: SerializeStruct> SerializeStruct for Parts<'_, S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), S::Error> {
        match self.fields.0.get(key) {
            None => self.parts.skip_field(key),
            Some(fields) if fields.is_all() => self.parts.serialize_field(key, value),
            Some(fields) => self.parts.serialize_field(key, &Only(value, fields)),
        }
    }

    fn skip_field(&mut self, key: &'static str) -> Result<(), S::Error> {
        self.parts.skip_field(key)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.parts.end()
    }
}

/// Passes on what has no fields.
macro_rules! as_it_is {
    ($($name:ident($($arg:ident: $kind:ty),*);)*) => {
        $(fn $name(self, $($arg: $kind),*) -> Result<S::Ok, S::Error> { self.serializer.$name($($arg),*) })*
    };
}

impl<'a, S: Serializer> Serializer for Picking<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Parts<'a, S::SerializeSeq>;
    type SerializeTuple = S::SerializeTuple;
    type SerializeTupleStruct = S::SerializeTupleStruct;
    type SerializeTupleVariant = S::SerializeTupleVariant;
    type SerializeMap = S::SerializeMap;
    type SerializeStruct = Parts<'a, S::SerializeStruct>;
    type SerializeStructVariant = S::SerializeStructVariant;

    as_it_is! {
        serialize_bool(v: bool);
        serialize_i8(v: i8);
        serialize_i16(v: i16);
        serialize_i32(v: i32);
        serialize_i64(v: i64);
        serialize_u8(v: u8);
        serialize_u16(v: u16);
        serialize_u32(v: u32);
        serialize_u64(v: u64);
        serialize_f32(v: f32);
        serialize_f64(v: f64);
        serialize_char(v: char);
        serialize_str(v: &str);
        serialize_bytes(v: &[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(name: &'static str);
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str);
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.serializer.serialize_some(&Only(value, self.fields))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.serializer.serialize_newtype_struct(name, &Only(value, self.fields))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.serializer.serialize_newtype_variant(name, index, variant, value)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        let Self { serializer, fields } = self;
        Ok(Parts { parts: serializer.serialize_seq(len)?, fields })
    }

    fn serialize_tuple(self, len: usize) -> Result<S::SerializeTuple, S::Error> {
        self.serializer.serialize_tuple(len)
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<S::SerializeTupleStruct, S::Error> {
        self.serializer.serialize_tuple_struct(name, len)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<S::SerializeTupleVariant, S::Error> {
        self.serializer.serialize_tuple_variant(name, index, variant, len)
    }

    fn serialize_map(self, len: Option<usize>) -> Result<S::SerializeMap, S::Error> {
        self.serializer.serialize_map(len)
    }

    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, S::Error> {
        let Self { serializer, fields } = self;
        Ok(Parts { parts: serializer.serialize_struct(name, len)?, fields })
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<S::SerializeStructVariant, S::Error> {
        self.serializer.serialize_struct_variant(name, index, variant, len)
    }
}
