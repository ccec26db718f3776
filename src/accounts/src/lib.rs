//! Users, devices, sessions, profiles and account data.
