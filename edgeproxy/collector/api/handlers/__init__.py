"""The handlers of the collector's endpoints: each calls a room and answers with what came of it."""
