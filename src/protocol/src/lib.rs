//! Matrix's rules as pure functions: identifiers, events, room versions, authorisation, state resolution.
