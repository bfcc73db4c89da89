package dek

import (
	"fmt"
	"io"
	"log/slog"
)

const (
	redacted     = "dek.Key(redacted)"
	redactedAEAD = "dek.AEAD(redacted)"
)

// String, GoString, Format, LogValue and MarshalText keep a key's bytes out of
// every print, log and encoding, whatever the verb.

func (*Key) String() string { return redacted }

func (*Key) GoString() string { return redacted }

// Format implements [fmt.Formatter] for all verbs.
func (*Key) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue implements [slog.LogValuer].
func (*Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements [encoding.TextMarshaler], and with it JSON.
func (*Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

func (AEAD) String() string { return redactedAEAD }

func (AEAD) GoString() string { return redactedAEAD }

// Format implements [fmt.Formatter] for all verbs.
func (AEAD) Format(f fmt.State, _ rune) { io.WriteString(f, redactedAEAD) }

// LogValue implements [slog.LogValuer].
func (AEAD) LogValue() slog.Value { return slog.StringValue(redactedAEAD) }

// MarshalText implements [encoding.TextMarshaler], and with it JSON.
func (AEAD) MarshalText() ([]byte, error) { return []byte(redactedAEAD), nil }
