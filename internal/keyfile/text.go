package keyfile

import (
	"encoding/json"
	"errors"
	"fmt"
)

// JSONError keeps values of a document out of an error's text, which
// encoding/json puts there.
func JSONError(err error) error {
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("its JSON is malformed at byte %d", e.Offset)
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("its JSON has a value of the wrong type at byte %d, want %v", e.Offset, e.Type)
	}
	return errors.New("its JSON is truncated, or has a member or a value that does not belong there")
}
