// Package systemd holds the unit file of the agent, and all that is said to
// the service manager: the sd_notify protocol.
package systemd

import _ "embed"

// Unit is the text of objectmount.service.
//
//go:embed objectmount.service
var Unit string
