package block

// Records returns every DEK record by block id, as the engine has it.
func (s *Store) Records() map[string]string {
	out := map[string]string{}
	lower, upper := Range{}.bounds(spaceDEK, 0)
	it, err := s.db.NewIter(lower, upper)
	if err != nil {
		panic(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			panic(err)
		}
		out[string(it.Key()[prefixSize:])] = string(v)
	}
	return out
}

// Document returns the keyring document, as the engine has it.
func (s *Store) Document() []byte {
	doc, err := readMeta(s.db, metaKeyring)
	if err != nil {
		panic(err)
	}
	return doc
}
