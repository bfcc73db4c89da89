package audit

// MarshalText implements [encoding.TextMarshaler]: what String returns.
func (id LogID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]: what [ParseLogID] parses, and the zeros
// of no log.
func (id *LogID) UnmarshalText(text []byte) (err error) {
	if string(text) == (LogID{}).String() {
		*id = LogID{}
		return nil
	}
	*id, err = ParseLogID(string(text))
	return err
}

// MarshalText implements [encoding.TextMarshaler]: what String returns.
func (h Head) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]: what [ParseHead] parses.
func (h *Head) UnmarshalText(text []byte) (err error) {
	*h, err = ParseHead(string(text))
	return err
}
