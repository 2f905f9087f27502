import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { judge } from '../host/checks/judge.ts'
import { readFacts } from '../host/facts/file.ts'
import { doctorText } from './doctor-text.ts'

const documents = fileURLToPath(new URL('../../test/facts', import.meta.url))
const facts = (name: string) => readFacts(join(documents, `${name}.json`))
const question = { depth: 2, neededMiB: 832 }

test('lines are no wider than asked for, but for commands, titles and the verdict', async () => {
  const one = await facts('aws-m5-large')
  const lines = doctorText([one], judge([one], question), { color: false, width: 60 }).split('\n')
  const wrapped = lines.slice(1, -1).filter((line) => !line.includes('$ ') && !line.includes('Name='))
  assert.ok(wrapped.length > 10)
  for (const line of wrapped) assert.ok(line.length <= 60, line)
})

test('what a machine says does not steer the terminal', async () => {
  const one = await facts('intel-firmware-lock')
  one.log = ['[1.0] x86/cpu: VMX (outside TXT) disabled by BIOS \x1b]0;title\x07\x1b[2J']
  one.cpu.model = 'a\x1b[31m'
  one.machine = 'host\r\x1b[1A'
  const text = doctorText([one], judge([one], question), { color: false, width: 100 })
  assert.doesNotMatch(text.replaceAll('\n', ''), /\p{Cc}/u)
})

test('names in commands are quoted: they may be anything', async () => {
  const windows = await facts('windows-11-amd-9.3')
  if (windows.windows) windows.windows.vm.name = "it's; Remove-Item C:"
  const host = await facts('ci-runner-permission')
  if (host.user) host.user.name = '$(reboot)'
  const commands = (one: typeof host) =>
    judge([one], question)
      .machines.flatMap(({ findings }) => findings)
      .flatMap(({ mend }) => [...(mend?.now ?? []), ...(mend?.lasting ?? [])])
      .join('\n')
  assert.match(commands(windows), /-VMName 'it''s; Remove-Item C:' -Expose/)
  assert.match(commands(host), /usermod -aG kvm '\$\(reboot\)'/)
})
