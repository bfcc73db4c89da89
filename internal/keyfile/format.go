package keyfile

import (
	"bytes"
	"crypto/rsa"
	"fmt"
)

// maxSize is the largest file to import in bytes. A key with a chain of
// certificates has a few tens of thousands.
const maxSize = 1 << 20

// Format is a kind of file to import.
type Format int

const (
	Unknown Format = iota
	PEM
	PFX
	Transfer
	DER
)

// FormatOf recognises the format of a file by its first bytes, whole or not.
func FormatOf(data []byte) Format {
	text := Text(data)
	switch {
	case bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")):
		return Transfer
	case bytes.Contains(text, []byte("-----BEGIN ")):
		return PEM
	case len(data) < 2 || data[0] != 0x30: // SEQUENCE, of PKCS#1, PKCS#8 and PKCS#12
		return Unknown
	}
	body := data[2:]
	if long := int(data[1]) - 0x80; long > 0 {
		body = body[min(long, len(body)):]
	}
	if bytes.HasPrefix(body, []byte{2, 1, 3}) { // INTEGER 3: PFX's version; a key's is 0 or 1
		return PFX
	}
	return DER
}

// Parse returns the private key of a PEM or PKCS#12 file, told apart by its content. The
// password is used only if the file is encrypted with one. A key transfer blob is not
// for this function: who cannot open it gives it to the vault as it is.
func Parse(data, password []byte) (*rsa.PrivateKey, error) {
	switch FormatOf(data) {
	case PEM:
		return ParsePEM(data, password)
	case PFX:
		return ParsePFX(data, string(password))
	case DER:
		return nil, fmt.Errorf(`it looks like a key in DER: convert it with "openssl pkey -inform DER -in FILE -out FILE.pem": %w`, ErrInvalid)
	}
	if err := checkSize(data); err != nil {
		return nil, err
	}
	if err := checkText(data); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("it is no file that can be imported: want PEM, PKCS#12 (.pfx) or a key transfer blob (.byok): %w", ErrInvalid)
}

func checkSize(data []byte) error {
	switch {
	case len(data) == 0:
		return fmt.Errorf("the file is empty: %w", ErrCorrupt)
	case len(data) > maxSize:
		return fmt.Errorf("the file has %d bytes, a key file has at most %d: %w", len(data), maxSize, ErrInvalid)
	}
	return nil
}
