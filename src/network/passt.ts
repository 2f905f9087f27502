import { mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import { outsideNetwork } from '../bundle/guest/scripts.ts'
import type { Tools } from '../bundle/tools.ts'
import { LocalMachine } from '../machine/local.ts'
import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'

/** The files of one passt. */
export interface PasstFiles {
  /** Where QEMU connects to it. */
  socket: string
  pidFile: string
}

export function passtFiles(dir: string, socketDir: string): PasstFiles {
  return { socket: `${socketDir}/passt`, pidFile: `${dir}/passt.pid` }
}

/**
 * Starts the way out for one level 1 guest: its TCP, UDP and DNS leave as connections of the user's own. passt gives
 * up all it could do to the host, and ends when its one guest's QEMU does. Unlike QEMU's own user network it can keep
 * guests off the host's loopback: `--no-map-gw`.
 * Throws `COMMAND_FAILED`, for example where the system allows users no namespaces.
 */
export async function startPasst(
  machine: Machine,
  tools: Tools,
  { socket, pidFile }: PasstFiles,
  signal: AbortSignal,
): Promise<void> {
  const { guest, gateway, dns } = outsideNetwork
  if (machine instanceof LocalMachine) {
    for (const dir of [dirname(socket), dirname(pidFile)]) await mkdir(dir, { recursive: true, mode: 0o700 })
  } else {
    const prepare = 'umask 077; mkdir -p "$1" "$2" && rm -f "$3"'
    const argv = ['sh', '-c', prepare, 'sh', dirname(socket), dirname(pidFile), socket]
    await run(machine, argv, { timeoutMs: 30_000, signal })
  }
  const addresses = ['-4', '-a', guest, '-n', '24', '-g', gateway, '--dns-forward', dns]
  const closed = ['--no-map-gw', '--no-dhcp', '--no-ndp', '--no-dhcpv6', '--no-ra', '-t', 'none', '-u', 'none']
  const argv = [...tools.argv('passt'), '--one-off', '--quiet', '-s', socket, '-P', pidFile, ...addresses, ...closed]
  await run(machine, argv, { timeoutMs: 30_000, signal })
}
