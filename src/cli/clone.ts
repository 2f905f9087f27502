import { randomBytes } from 'node:crypto'
import { Command } from 'commander'
import type { StartedGuest } from '../stack/start.ts'
import { NestvmError } from '../store/error.ts'
import { printJson, type Session, session } from './session.ts'
import { afterDashes, collect } from './values.ts'

interface CloneOptions {
  name?: string
  detach?: boolean
  interactive?: boolean
  tty?: boolean
  vm?: boolean
  publish: string[]
  json?: boolean
}

export function cloneCommand(): Command {
  return new Command('clone')
    .description('Let the machines of a snapshot run again, as new ones: with other names, keys and random numbers.')
    .usage('[options] SNAPSHOT [-- COMMAND...]')
    .argument('<snapshot>', 'its tag, or the beginning of its id')
    .option('--name <name>', 'of the level 1 guest (default: made up)')
    .option('-d, --detach', 'leave it running and print its path')
    .option('-i, --interactive', 'pass standard input to the command')
    .option('-t, --tty', 'give the command a terminal')
    .option('--vm', 'run the command in the innermost guest itself rather than in its container')
    .option(
      '-p, --publish <[ip:]host:guest[/udp]>',
      'lead a port of this host to one of the innermost guest',
      collect,
      [],
    )
    .option('--json', 'print one JSON document')
    .allowExcessArguments()
    .addHelpText('after', '\nWith a COMMAND and without -d, the machines end with the command.')
    .action((name: string, options: CloneOptions) =>
      session(options.json === true, (own) => cloneIt(own, name, options, afterDashes())),
    )
}

async function cloneIt(own: Session, name: string, options: CloneOptions, argv: string[] = []): Promise<number> {
  if (argv.length === 0 && !options.detach) {
    throw new NestvmError('NO_COMMAND', 'there is no command to run', {
      hint: `nestvm clone ${name} -- COMMAND, or -d to leave the machines running`,
      exitStatus: 2,
    })
  }
  const { bundleOn, theBundle } = await import('./bundle.ts')
  const { cloneSnapshot } = await import('../snapshot/clone.ts')
  const { parsePort } = await import('../network/ports.ts')
  const { destroy } = await import('../stack/stop.ts')
  const { findSnapshot } = await import('../snapshot/record.ts')
  const { world, guests: saved } = await findSnapshot(name)
  const bundle = await bundleOn(own, await theBundle(own, { arch: world.arch, kernel: saved[0]?.kernel }))
  const { guests, innermost } = await cloneSnapshot(own.context, bundle, {
    ...{ snapshot: name, name: options.name ?? `vm-${randomBytes(3).toString('hex')}` },
    ...{ detach: options.detach === true, ports: options.publish.map(parsePort) },
  })
  const [outermost] = guests
  if (!outermost) return 0
  try {
    const ended = argv.length === 0 ? undefined : await runInside(own, guests, innermost, argv, options)
    const status = ended?.exitStatus ?? 0
    if (!options.detach) {
      if (options.json) printJson({ machine: innermost.record.path, ...ended })
      return status
    }
    const { release } = await import('../stack/start.ts')
    for (const { record } of guests) await release(record)
    const machines = guests.map(({ record }) => record.path)
    if (options.json) printJson({ machine: outermost.record.path, machines, ...ended })
    else if (argv.length === 0) console.log(outermost.record.path)
    return status
  } finally {
    if (outermost.record.owner) await destroy(own.context, outermost.record)
  }
}

async function runInside(
  own: Session,
  guests: readonly StartedGuest[],
  innermost: StartedGuest,
  argv: readonly string[],
  { interactive = false, tty: wantsTty, vm = false, json }: CloneOptions,
): Promise<{ exitStatus: number; stdout?: string; stderr?: string }> {
  const { attach, windowSize } = await import('./attach.ts')
  const { spawnInside } = await import('../stack/inside.ts')
  const tty = wantsTty ? { ...windowSize(), term: process.env.TERM } : undefined
  const streams = { tty, noInput: !interactive && !tty }
  const program = await spawnInside(own.context, innermost.record, vm, { argv, env: {} }, streams)
  const died = Promise.race(guests.map((guest) => guest.died))
  if (!json) {
    const exitStatus = await Promise.race([attach(program, own, { interactive, tty: tty !== undefined }), died])
    return { exitStatus }
  }
  const { collect: collectOutput } = await import('./collect.ts')
  return Promise.race([collectOutput(program, own, interactive), died])
}
