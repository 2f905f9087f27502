import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Home } from './nestvm.ts'

/** Keeps a file whose contents it tells, and counts in another, without starting programs, which is much work at level 2. */
export const work = `head -c 1000000 /dev/urandom > /tmp/file; md5sum < /tmp/file > /tmp/sum
mkfifo /tmp/never
(exec 4<> /tmp/never; i=0; while :; do i=$((i + 1)); echo $i >> /tmp/lines; read -t 0.05 x <&4; done) > /dev/null 2>&1 < /dev/null &`
/** The lines are all numbers from 1 on, none twice, and it goes on. */
const look = `md5sum < /tmp/file | cmp - /tmp/sum || exit 1
awk '$1 != NR { exit 1 }' /tmp/lines || exit 1
tail -n 1 /tmp/lines; sleep 0.3; tail -n 1 /tmp/lines`

/** How far a guest that does that `work` has counted. */
export async function count(home: Home, path: string): Promise<number> {
  const [first = 0, later = 0] = (await home.ok('exec', path, '--', 'sh', '-c', look)).split('\n').map(Number)
  assert.ok(later > first, `the counter of ${path} stands at ${first}`)
  return later
}

export async function paths(home: Home): Promise<string[]> {
  return (await home.json<{ machine: string }[]>('ls')).map(({ machine }) => machine).sort()
}

/** How many guests a host's KVM has. */
export async function engines(home: Home, host: string): Promise<number> {
  const script = 'ls -l /proc/[0-9]*/fd 2> /dev/null | grep -c kvm-vm || true'
  return Number(await home.ok('exec', host, '--', 'sh', '-c', script))
}

/** What a guest hypervisor has of the guests in it: their engines, files, network devices and routes. */
export async function heldIn(home: Home, host: string): Promise<{ engines: number; rest: string[] }> {
  const script = `ls -l /proc/[0-9]*/fd 2> /dev/null | grep -c kvm-vm
ls -d /run/nestvm/*/ | grep -v taken
ls /sys/class/net | grep '^t'; ip route | grep ' dev t'; true`
  const [engines, ...rest] = (await home.ok('exec', host, '--', 'sh', '-c', script)).split('\n').filter(Boolean)
  return { engines: Number(engines), rest }
}

export type Phase = 'still' | 'sent' | 'taken over'

/** What a machine's record says at this moment; undefined when there is none. */
export function recordOf(home: Home, name: string) {
  const dir = join(`${home.env.XDG_STATE_HOME}`, 'nestvm/machines')
  for (const id of existsSync(dir) ? readdirSync(dir) : []) {
    try {
      const record: unknown = JSON.parse(readFileSync(join(dir, id, 'record.json'), 'utf8'))
      if (isRecord(record) && record.path.endsWith(name)) return record
    } catch {
      // It is being made, or removed.
    }
  }
  return undefined
}

interface Recorded {
  id: string
  path: string
  parent?: string
  moving?: { to: string }
  engineProcess?: { pid: number }
}

function isRecord(value: unknown): value is Recorded {
  return typeof value === 'object' && value !== null && 'path' in value && typeof value.path === 'string'
}

/** How far the move of a guest is. */
export function phaseOf(home: Home, name: string): Phase {
  const record = recordOf(home, name)
  if (!record?.moving) return 'still'
  return record.parent === record.moving.to ? 'taken over' : 'sent'
}

/** Waits, looking often, for something that a machine's record is to say. */
export async function until(condition: () => boolean, limitMs: number): Promise<boolean> {
  for (const end = performance.now() + limitMs; performance.now() < end; await sleep(5)) if (condition()) return true
  return condition()
}
