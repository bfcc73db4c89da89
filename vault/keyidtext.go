package vault

// MarshalText implements [encoding.TextMarshaler]: an id is what String returns, and "" if
// nothing of it is set, so that it can be a value or a key in JSON.
func (id KeyID) MarshalText() ([]byte, error) {
	if id == (KeyID{}) {
		return nil, nil
	}
	return []byte(id.String()), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler]. It reads what MarshalText wrote of a
// valid id, and refuses anything else.
func (id *KeyID) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*id = KeyID{}
		return nil
	}
	*id, err = ParseKeyID(string(text))
	return err
}
