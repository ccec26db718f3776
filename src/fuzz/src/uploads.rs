//! What clients upload to be given to others: keys of devices and users.

use std::collections::BTreeMap;

use comity_keys::object::{
    CrossSigningKey, DeviceKeys, PreKey, Signed, Usage, device_keys_of_peer, shown,
};
use comity_protocol::sign::SigningKey;
use serde_json::{Value, value::RawValue};

use crate::text;

const USER: &str = "@alice:localhost";
const DEVICE: &str = "DEVICE";

/// A key's id, a line break, an object as it is uploaded (or told by another server): whichever form takes it keeps all of it but what
/// isn't signed, and takes what is kept as the same. What we give out is that, with signatures put to those that are there.
pub(crate) fn key_object(bytes: &[u8]) {
    let (key_id, object) = text(bytes).split_once('\n').unwrap_or_default();
    let Ok(raw) = serde_json::from_str::<&RawValue>(object) else {
        return;
    };
    if let Ok(keys) = DeviceKeys::read(raw, USER, DEVICE) {
        let again = DeviceKeys::read(&kept(raw, &keys.json), USER, DEVICE).unwrap();
        assert_eq!((&again.json, &again.ed25519), (&keys.json, &keys.ed25519));
        let key = DeviceKeys::signing_key(&keys.json, DEVICE);
        assert_eq!(key.as_ref(), Some(&keys.ed25519));
        let told = device_keys_of_peer(raw, USER, DEVICE);
        assert_eq!(told.as_ref(), Some(&keys.json));
    }
    let signed_by = SigningKey::from_seed(DEVICE, &[1; 32]).unwrap();
    let signed_by = signed_by.verify_key().to_base64();
    let read = |raw: &RawValue| PreKey::read(key_id, raw, USER, DEVICE, Some(&signed_by));
    if let Ok(key) = read(raw) {
        assert_eq!(read(&kept(raw, &key.json)).unwrap(), key);
    }
    for usage in [Usage::Master, Usage::SelfSigning, Usage::UserSigning] {
        let Ok(key) = CrossSigningKey::read(raw, USER, usage) else {
            continue;
        };
        let again = CrossSigningKey::read(&kept(raw, &key.json), USER, usage).unwrap();
        let stored = CrossSigningKey::stored(&key.json, USER, usage).unwrap();
        for other in [again, stored] {
            assert_eq!((&other.json, other.id()), (&key.json, key.id()));
            assert_eq!(other.signatures, key.signatures);
        }
    }
    if let Ok(signed) = Signed::read(raw) {
        let put = [("@bob:localhost", "ed25519:B", "a signature")];
        let given = shown(&signed.json, put, Some("a name")).unwrap();
        let given = Signed::read(&given).unwrap();
        let mut signatures = signed.signatures;
        for (user, by, signature) in put {
            let of: &mut BTreeMap<_, _> = signatures.entry(user.to_owned()).or_default();
            of.insert(by.to_owned(), signature.to_owned());
        }
        assert_eq!(given.signatures, signatures);
        assert_eq!(unsigned(&given.json), unsigned(&signed.json));
    }
}

/// What is kept of an object, which is all that was signed of it.
fn kept(uploaded: &RawValue, json: &str) -> Box<RawValue> {
    let mut uploaded = serde_json::from_str::<Value>(uploaded.get()).unwrap();
    if let Some(object) = uploaded.as_object_mut() {
        object.remove("unsigned");
    }
    let kept = serde_json::from_str::<Value>(json).unwrap();
    assert_eq!(kept, uploaded);
    RawValue::from_string(json.to_owned()).unwrap()
}

/// An object but for its signatures.
fn unsigned(json: &str) -> Value {
    let mut object = serde_json::from_str::<Value>(json).unwrap();
    object["signatures"].take();
    object
}
