import { join } from 'node:path'
import * as z from 'zod'
import { outsideNetwork } from '../bundle/guest/scripts.ts'
import type { Tools } from '../bundle/tools.ts'
import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import { withLock } from '../store/lock.ts'
import { statePaths } from '../store/paths.ts'

/** How a level 1 guest is on the host's bridge, with what takes it off again. */
export const bridgePortSchema = z.object({
  tap: z.string(),
  address: z.string(),
  /** The packet filter's program, to be followed by its arguments. */
  nft: z.array(z.string()),
})

export type BridgePort = z.infer<typeof bridgePortSchema>

/** As for `outsideNetwork`, the other half of the range. */
export const bridgeGateway = '198.19.0.1'
const bridge = 'nestvm0'

/** Throws `NO_ADDRESS`. */
export function bridgePort(id: string, taken: readonly string[], tools: Tools): BridgePort {
  const free = Array.from({ length: 253 }, (_, index) => `198.19.0.${index + 2}`).find((each) => !taken.includes(each))
  if (free === undefined) throw new NestvmError('NO_ADDRESS', `all addresses on the bridge ${bridge} are taken`)
  return { tap: `n${id}`, address: free, nft: tools.argv('nft') }
}

/**
 * Puts a tap device on the bridge, which is made first where it is not there: with addresses translated on the way out,
 * and forwarding switched on. Returns what was changed, as lines for people. Throws `COMMAND_FAILED`.
 */
export async function joinBridge(machine: Machine, port: BridgePort, signal: AbortSignal): Promise<string[]> {
  const argv = ['sh', '-c', joinScript, 'sh', port.tap, ...port.nft]
  const { stdout } = await locked(() => run(machine, argv, { timeoutMs: 30_000, signal }))
  return stdout.split('\n').filter(Boolean)
}

/** Takes the tap device away, and with the last one all that `joinBridge` had changed. */
export async function leaveBridge(machine: Machine, port: BridgePort): Promise<void> {
  const argv = ['sh', '-c', leaveScript, 'sh', port.tap, ...port.nft]
  await locked(() => run(machine, argv, { timeoutMs: 30_000, allowFailure: true }))
}

function locked<T>(work: () => Promise<T>): Promise<T> {
  return withLock(join(statePaths().dir, 'bridge.lock'), work, { timeoutMs: 60_000 })
}

/** Guests ask the name server that passt would be; here the host's own answers. One on its loopback cannot. */
const joinScript = `set -e
tap=$1; shift
if [ ! -d /sys/class/net/${bridge} ]; then
  ip link add ${bridge} type bridge
  echo "added the bridge ${bridge}, ${bridgeGateway}/24"
  ip addr add ${bridgeGateway}/24 dev ${bridge}
  ip link set ${bridge} up
fi
if ! "$@" list table ip nestvm > /dev/null 2>&1; then
  resolver=$(cat /run/systemd/resolve/resolv.conf /etc/resolv.conf 2> /dev/null |
    sed -n 's/^nameserver  *\\([0-9][0-9.]*\\) *$/\\1/p' | grep -v '^127\\.' | head -n 1)
  dns=
  [ -z "$resolver" ] || dns="iifname ${bridge} ip daddr ${outsideNetwork.dns} dnat to $resolver"
  "$@" -f - << END
table ip nestvm {
  chain in { type nat hook prerouting priority dstnat; $dns
  }
  chain out { type nat hook postrouting priority srcnat; ip saddr 198.19.0.0/24 oifname != ${bridge} masquerade
  }
}
END
  echo "added the nft table ip nestvm, which translates the bridge's addresses"
fi
if [ "$(cat /proc/sys/net/ipv4/ip_forward)" = 0 ]; then
  ip link set ${bridge} alias 'forwarding was off'
  echo 1 > /proc/sys/net/ipv4/ip_forward
  echo "switched net.ipv4.ip_forward on"
fi
ip tuntap add dev "$tap" mode tap
ip link set "$tap" master ${bridge} up`

const leaveScript = `tap=$1; shift
ip link del "$tap" 2> /dev/null
if [ -d /sys/class/net/${bridge} ] && [ -z "$(ls /sys/class/net/${bridge}/brif)" ]; then
  grep -q 'was off' /sys/class/net/${bridge}/ifalias && echo 0 > /proc/sys/net/ipv4/ip_forward
  "$@" delete table ip nestvm 2> /dev/null
  ip link del ${bridge}
fi`
