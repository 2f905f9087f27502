import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LocalMachine } from '../machine/local.ts'
import { run } from '../machine/run.ts'
import { guestInitrd, newIdentity } from './initrd.ts'

test("a guest's own part holds its name, address and keys, and not the key that logs in to it", () => {
  const identity = newIdentity({ hostname: 'outer-inner', address: '10.1.2.3', nested: true, mtu: 1500 })
  const archive = guestInitrd(identity)
  const text = archive.toString('latin1')
  assert.ok(text.includes('HOSTNAME=outer-inner\nADDRESS=10.1.2.3\nNESTED=1\n'))
  assert.ok(text.includes(identity.login.publicLine))
  assert.ok(archive.includes(identity.host.dropbear))
  assert.ok(!text.includes('PRIVATE KEY'))
  const [, line] = identity.login.openssh.split('\n')
  assert.ok(line && !text.includes(line))
})

test('no two guests have a key in common', () => {
  const [a, b] = [
    newIdentity({ hostname: 'a', address: '10.1.0.1', nested: false, mtu: 1500 }),
    newIdentity({ hostname: 'a', address: '10.1.0.1', nested: false, mtu: 1500 }),
  ]
  const keys = [a.login, a.host, b.login, b.host].map(({ publicBlob }) => publicBlob.toString('hex'))
  assert.equal(new Set(keys).size, 4)
})

test('secrets in it are for root alone, and its configuration is what a shell reads', async () => {
  const archive = guestInitrd(newIdentity({ hostname: 'vm', address: '10.1.2.3', nested: false, mtu: 1500 }))
  const entries = new Map(read(archive).map((entry) => [entry.name, entry]))
  for (const name of ['etc/nestvm/host-key', 'root/.ssh/authorized_keys']) assert.equal(entries.get(name)?.mode, 0o600)
  for (const name of ['root', 'root/.ssh']) assert.equal(entries.get(name)?.mode, 0o700)

  const config = entries.get('etc/nestvm/config')?.data ?? assert.fail()
  const argv = ['sh', '-c', `${config}echo "$HOSTNAME $ADDRESS $NESTED"`]
  assert.equal((await run(new LocalMachine(), argv)).stdout, 'vm 10.1.2.3 0\n')
})

/** The members of a newc archive (buffer-format.rst in the kernel's documentation). */
function read(archive: Buffer): { name: string; mode: number; data: string }[] {
  const entries = []
  for (let at = 0; at < archive.length; ) {
    const field = (index: number) =>
      Number.parseInt(archive.toString('latin1', at + 6 + 8 * index, at + 14 + 8 * index), 16)
    const [mode, size, nameSize] = [field(1) & 0o7777, field(6), field(11)]
    const name = archive.toString('latin1', at + 110, at + 110 + nameSize - 1)
    const start = (at + 110 + nameSize + 3) & ~3
    entries.push({ name, mode, data: archive.toString('latin1', start, start + size) })
    at = (start + size + 3) & ~3
  }
  return entries
}
