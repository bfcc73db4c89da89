//go:build !linux

package dirlock

import (
	"errors"
	"testing"
)

var errNoMount = errors.New("bind mounts and users are Linux's here")

func bind(testing.TB, string, string) error { return errNoMount }

func dropPrivileges() error { return errNoMount }
