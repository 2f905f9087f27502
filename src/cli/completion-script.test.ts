import assert from 'node:assert/strict'
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { LocalMachine } from '../machine/local.ts'
import { run } from '../machine/run.ts'
import { completionScript } from './completion-script.ts'
import { createProgram } from './program.ts'

const machine = new LocalMachine()
const dir = mkdtempSync(join(tmpdir(), 'completion-'))
after(() => rmSync(dir, { recursive: true }))

function written(shell: 'bash' | 'zsh' | 'fish'): string {
  const path = join(dir, `nestvm.${shell}`)
  writeFileSync(path, completionScript(shell, createProgram()))
  return path
}
const [bash, zsh, fish] = [written('bash'), written('zsh'), written('fish')]
// Stands in for `nestvm ls`, whose output the script reads.
const machines = [{ machine: 'outer' }, { machine: 'outer/inner' }]
writeFileSync(join(dir, 'nestvm'), `#!/bin/sh\ncat <<'E'\n${JSON.stringify(machines, null, 2)}\nE\n`)
chmodSync(join(dir, 'nestvm'), 0o755)

const env = { HOME: dir, PATH: `${dir}:${process.env.PATH}` }

/** What bash would offer for the last word. Where that is nothing, it offers names of files. */
async function complete(...words: string[]): Promise<string[]> {
  const script = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _nestvm; declare -p COMPREPLY'
  const { stdout } = await run(machine, ['bash', '-uc', script, 'bash', bash, 'nestvm', ...words], { env })
  return [...stdout.matchAll(/\[\d+\]="([^"]*)"/g)].flatMap(([, word = '']) => word)
}

test('bash takes the scripts for bash and zsh', async () => {
  for (const path of [bash, zsh]) assert.equal((await run(machine, ['bash', '-n', path])).stderr, '')
})

test('a command is completed, and none that is hidden', async () => {
  assert.deepEqual(await complete('insp'), ['inspect'])
  assert.deepEqual((await complete('s')).sort(), ['setup', 'shell', 'snapshot', 'ssh-config', 'stop'])
  assert.ok((await complete('')).includes('run'))
  assert.deepEqual(await complete('ssh-p'), [])
  assert.deepEqual(await complete('bogus', ''), [])
})

test('what commander adds by itself is completed too', async () => {
  assert.deepEqual(await complete('hel'), ['help'])
  assert.deepEqual(await complete('--'), ['--version', '--help'])
  assert.deepEqual(await complete('image', '--'), ['--help'])
  assert.deepEqual(await complete('help', 'im'), ['image'])
  assert.deepEqual(await complete('image', 'help', 'p'), ['pull'])
})

test("an option is completed from its command's own", async () => {
  assert.deepEqual(await complete('run', '--de'), ['--depth', '--detach'])
  assert.deepEqual(await complete('ls', '--t'), ['--tree'])
  assert.deepEqual(await complete('ls', '--de'), [])
})

test('commands of commands are completed, and their options', async () => {
  assert.deepEqual((await complete('image', '')).sort(), ['help', 'ls', 'pull', 'rm'])
  assert.deepEqual(await complete('image', 'pull', '--a'), ['--arch'])
  assert.deepEqual(await complete('image', 'rm', '--a'), [])
  assert.deepEqual(await complete('bench', 'vo'), ['volumes'])
})

test('machines are completed where a command or an option takes them', async () => {
  assert.deepEqual(await complete('exec', 'out'), ['outer', 'outer/inner'])
  assert.deepEqual(await complete('stop', 'outer/'), ['outer/inner'])
  assert.deepEqual(await complete('migrate', ''), ['outer', 'outer/inner'])
  assert.deepEqual(await complete('snapshot', 'create', '--force', ''), ['outer', 'outer/inner'])
  assert.deepEqual(await complete('cp', 'out'), ['outer:', 'outer/inner:'])
  assert.deepEqual(await complete('run', '--on', 'o'), ['outer', 'outer/inner'])
  assert.deepEqual(await complete('migrate', 'vm', '--to', 'o'), ['outer', 'outer/inner'])
  assert.deepEqual(await complete('exec', '--w'), ['--workdir'])
  for (const words of [
    ['image', 'rm'],
    ['kernel', 'rm'],
    ['snapshot', 'rm'],
    ['snapshot', 'ls'],
    ['bench', 'exec'],
  ])
    assert.deepEqual(await complete(...words, 'o'), [], words.join(' '))
})

test('the words of what takes one of some are completed', async () => {
  assert.deepEqual(await complete('enable', '--platform', 'v'), ['vmware', 'virtualbox'])
  assert.deepEqual(await complete('run', '--platform', 'v'), [])
  assert.deepEqual(await complete('image', 'pull', '--arch', ''), ['x86_64', 'arm64'])
  assert.deepEqual(await complete('bench', 'start', '--json', '--arch', 'a'), ['arm64'])
  assert.deepEqual(await complete('run', '--arch', '='), ['x86_64', 'arm64'])
  assert.deepEqual(await complete('run', '--arch', '=', 'a'), ['arm64'])
  assert.deepEqual(await complete('completion', ''), ['bash', 'zsh', 'fish'])
})

test('names of files are left to the shell', async () => {
  for (const path of [bash, zsh])
    assert.match(readFileSync(path, 'utf8'), /^complete -o bashdefault -o default -F _nestvm nestvm$/m)
  const lines = ['cp ./', 'run -v ', 'run --volume ', 'doctor --facts ', 'report -o ', 'kernel build ', 'run --name -']
  for (const line of lines) assert.deepEqual(await complete(...line.split(' ')), [], line)
})

test('nothing of nestvm is offered after --', async () => {
  for (const line of ['run -- ', 'run -- -', 'exec outer -- ', 'exec outer -- ls --', 'run -- ls --arch '])
    assert.deepEqual(await complete(...line.split(' ')), [], line)
})

test('zsh runs the same function', { skip: await isMissing('zsh') }, async () => {
  const script = `compdef() { :; }; source "$1"; shift; emulate sh; setopt kshglob noshglob braceexpand
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _nestvm; echo "\${COMPREPLY[@]}"`
  // It leaves it to zsh which of them fit.
  for (const [words, offered] of [
    ['image ', 'pull ls rm help'],
    ['image pull --arch a', 'x86_64 arm64'],
    ['migrate vm --to o', 'outer outer/inner'],
    ['exec outer -- l', ''],
    ['cp --', '-h --help'],
  ] as const) {
    const argv = ['zsh', '-fc', script, 'zsh', zsh, 'nestvm', ...words.split(' ')]
    const { stdout, stderr } = await run(machine, argv, { env })
    assert.deepEqual([stdout.trim(), stderr], [offered, ''], words)
  }
})

test('fish is told of every command, its options and what they take', () => {
  const lines = readFileSync(fish, 'utf8').split('\n')
  for (const line of [
    `'__nestvm_after "  "' -a stop -d 'Shut machines down, from the inside out.'`,
    `'__nestvm_after " run *"' -l json -d 'print one JSON document'`,
    `'__nestvm_after " run *"' -s v -l volume -r -F -d 'show a directory of this host to the guest'`,
    `'__nestvm_after " image "' -a rm -d 'Remove images.'`,
    `'__nestvm_after " image  pull *"' -l arch -r -f -a 'x86_64 arm64' -d 'the guest\\'s architecture (default: this host\\'s)'`,
    `'__nestvm_after " exec *"' -f -a '(__nestvm_machines "")'`,
    `'__nestvm_after " cp *"' -F -a '(__nestvm_machines ":")'`,
    `'__nestvm_after " completion *"' -f -a 'bash zsh fish'`,
  ])
    assert.ok(lines.includes(`complete -c nestvm -n ${line}`), line)
  const ofMachines = lines.filter((line) => /-[fF] -a '\(__nestvm_machines/.test(line) && !/ -l /.test(line))
  const takeMachines = ofMachines.map((line) => /" (.*) \*"/.exec(line)?.[1])
  const expected = ['console', 'cp', 'exec', 'inspect', 'logs', 'migrate', 'report', 'rm', 'shell', 'snapshot  create']
  assert.deepEqual(takeMachines.sort(), [...expected, 'stop'])
  assert.ok(!lines.some((line) => line.includes('ssh-proxy')))
})

test('fish offers it', { skip: await isMissing('fish') }, async () => {
  const offered = async (line: string) => {
    const script = 'source $argv[1]; cd $argv[2]; complete -C "nestvm $argv[3]"'
    const { stdout } = await run(machine, ['fish', '-c', script, fish, dir, line], { env })
    return stdout.split('\n').flatMap((entry) => entry.split('\t')[0] || [])
  }
  const files = ['nestvm', 'nestvm.bash', 'nestvm.fish', 'nestvm.zsh']
  for (const [line, words] of [
    ['insp', ['inspect']],
    ['image ', ['help', 'ls', 'pull', 'rm']],
    ['image pull --arch ', ['arm64', 'x86_64']],
    ['exec ', ['outer', 'outer/inner']],
    ['migrate vm --to ', ['outer', 'outer/inner']],
    ['image rm ', []],
    ['snapshot rm ', []],
    ['bench exec ', []],
    ['bench exec --w', []],
    ['ls ', []],
    ['cp ', [...files, 'outer/inner:', 'outer:']],
    ['run -v ', files],
    ['run --depth ', []],
    ['exec outer -- ', files],
    ['exec outer -- --', []],
  ] as const)
    assert.deepEqual(await offered(line), words, line)
})

/** Why a test cannot be run here, for the report of the tests; what the shell gets is read by others. */
async function isMissing(shell: string): Promise<string | false> {
  return run(machine, [shell, '--version']).then(
    () => false,
    () => `no ${shell} here: its script is only read`,
  )
}
