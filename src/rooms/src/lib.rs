//! The room engine: actors, the event graph, state, timeline.
