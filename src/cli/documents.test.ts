import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { Command } from 'commander'
import { createProgram } from './program.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const documents = ['README.md', ...readdirSync(join(root, 'docs')).map((name) => `docs/${name}`)]
const read = (path: string) => readFileSync(join(root, path), 'utf8')

test('every example in the documents is a command that exists, with options that exist', () => {
  let examples = 0
  for (const document of documents) {
    for (const words of nestvmCommands(read(document))) {
      assert.doesNotThrow(() => check(words), `${document}: nestvm ${words.join(' ')}`)
      examples++
    }
  }
  assert.ok(examples > 10, `${examples} examples`)
})

test('a wrong example would be found', () => {
  const wrong = [
    ['walk'],
    ['run', '--dept', '2'],
    ['run', '--depth', 'two'],
    ['logs', 'vm', '--of', 'x'],
    ['bench', 'x'],
  ]
  for (const words of wrong) assert.throws(() => check(words), Error, words.join(' '))
  check(['run', '-it', '-e', 'A=1', '--depth', '3', '--', 'sh', '--dept'])
})

test('docs/commands.md has a section for every command, with just the options that it has', () => {
  const sections = new Map(
    read('docs/commands.md')
      .split(/^## /m)
      .map((section) => [/^nestvm ([a-z -]+)/.exec(section)?.[1]?.trim(), section]),
  )
  const commands = leaves(createProgram())
  const names = commands.map(({ name }) => name)
  assert.deepEqual([...sections.keys()].filter((name) => name !== undefined).sort(), names.sort())
  for (const { name, command } of commands) {
    const documented = [...(sections.get(name) ?? '').matchAll(/^\| `([^`]+)`/gm)].map(([, flags]) => flags).sort()
    assert.deepEqual(documented, command.options.map(({ flags }) => flags).sort(), name)
  }
})

test('links between the documents lead somewhere', () => {
  for (const document of documents) {
    for (const [, target = ''] of read(document).matchAll(/\]\(([^)#:]+)[^)]*\)/g)) {
      if (!/^\w+$/.test(target)) assert.ok(read(join(document, '..', target)), `${document}: ${target}`)
    }
  }
})

/** The commands of all console blocks, as words after `nestvm`. Examples need no more of a shell's grammar than this. */
function nestvmCommands(text: string): string[][] {
  const blocks = [...text.matchAll(/^```console\n(.*?)^```/gms)].map(([, block = '']) => block)
  const lines = blocks.flatMap((block) => block.split('\n').filter((line) => line.startsWith('$ ')))
  return lines
    .flatMap((line) =>
      line
        .slice(2)
        .replace(/\s#.*$/, '')
        .split(/&&|[|<>()]/),
    )
    .map((part) => part.trim().split(/\s+/))
    .filter((words) => words.includes('nestvm'))
    .map((words) => words.slice(words.indexOf('nestvm') + 1))
}

/** Throws for what commander would refuse; runs nothing. */
function check(words: readonly string[]): void {
  let command: Command = createProgram()
  let rest = [...words]
  while (command.commands.length > 0) {
    const inner = command.commands.find((other) => other.name() === rest[0])
    assert.ok(inner, `there is no command ${rest[0]}`)
    command = inner
    rest = rest.slice(1)
  }
  command.exitOverride().configureOutput({ writeErr: () => {} })
  const end = rest.indexOf('--')
  const { operands, unknown } = command.parseOptions(end < 0 ? rest : rest.slice(0, end))
  assert.deepEqual(unknown, [])
  const least = command.registeredArguments.filter(({ required }) => required).length
  assert.ok(operands.length >= least, 'an operand is missing')
}

/** Commands that do something, by their whole names; hidden ones are for programs. */
function leaves(command: Command, prefix = ''): { name: string; command: Command }[] {
  return command.commands
    .filter((inner) => inner.description() !== '')
    .flatMap((inner) => {
      const name = `${prefix}${inner.name()}`
      return inner.commands.length > 0 ? leaves(inner, `${name} `) : [{ name, command: inner }]
    })
}

/** Codes that are data rather than errors, and names of variables. */
const noErrors = /^(KVM_OK|CAP_.*|CONFIG_.*|RLIMIT_.*|SSH_AUTH_SOCK|XDG_.*|NESTVM_.*|SOURCE_DATE_EPOCH)$/

test('docs/commands.md lists every error code', () => {
  const files = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
  // The file server's words of that form are the protocol's.
  const ours = files.filter((file) => !file.startsWith('volume/'))
  const sources = ours.filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'))
  const codes = sources.flatMap((file) => [...read(join('src', file)).matchAll(/'([A-Z]+(?:_[A-Z]+)+)'/g)])
  const [, listed = ''] = read('docs/commands.md').split('## Error codes')
  const missing = [...new Set(codes.map(([, code = '']) => code))].filter(
    (code) => !noErrors.test(code) && !listed.includes(`\`${code}\``),
  )
  assert.deepEqual(missing, [])
})
