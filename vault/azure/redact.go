package azure

import (
	"regexp"
	"strings"
)

// Tokens have no business in an answer. Should one be there (a proxy's page that
// repeats the request, say), it does not get into an error's text: the request's own
// token is looked for as it is, any other by its shape. A JSON Web Token starts with
// the base64url of `{"`.
var (
	jwt    = regexp.MustCompile(`eyJ[A-Za-z0-9_=-]{4,}(\.[A-Za-z0-9_=.-]*)?`)
	bearer = regexp.MustCompile(`(?i)\b(bearer|assertion|client_secret|access_token|refresh_token)["':= ]+[A-Za-z0-9._~+/=-]{8,}`)
)

const redacted = "[redacted]"

// clean returns text from the outside as one line of printable characters of at most
// that many bytes, without tokens.
func clean(text, token string, most int) string {
	if len(token) >= 8 {
		text = strings.ReplaceAll(text, token, redacted)
	}
	text = jwt.ReplaceAllString(text, redacted)
	text = bearer.ReplaceAllString(text, "${1} "+redacted)
	text = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\uFFFD' || r >= 0x202a && r <= 0x202e {
			return ' '
		}
		return r
	}, text)), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}
