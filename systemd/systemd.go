// Package systemd holds the unit file of the agent, and all that is said to
// the service manager: the sd_notify protocol.
//
// The protocol is one datagram per message to the socket named by
// NOTIFY_SOCKET. A service of Type=notify is "starting" until it says
// READY=1, and what is ordered After= it waits that long:
//
//	start ──── EXTEND_TIMEOUT_USEC=…, STATUS=… ────▶ READY=1
//	                                                   │ WATCHDOG=1 every WatchdogSec/2
//	                                                   │ RELOADING=1 … READY=1
//	                                                   ▼
//	                                               STOPPING=1
//
// Outside systemd there is no socket, and every message is a no-op.
package systemd

import _ "embed"

// Unit is the text of objectmount.service, as it is installed in
// /usr/lib/systemd/system.
//
//go:embed objectmount.service
var Unit string
