package block

// DroppingKEKs reports whether RewrapDEKs is looking for KEKs that no record names.
func (s *Store) DroppingKEKs() bool { return s.dropping.Load() != nil }
