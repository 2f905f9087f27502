import { Command } from 'commander'
import { type Session, session } from './session.ts'
import { collectEnv } from './values.ts'

interface ExecOptions {
  interactive?: boolean
  tty?: boolean
  env: Record<string, string>
  workdir?: string
  user?: string
  vm?: boolean
  json?: boolean
}

export function execCommand(): Command {
  return new Command('exec')
    .description('Run a command in a running machine.')
    .usage('[options] MACHINE -- COMMAND...')
    .argument('<machine>', 'its path, for example outer/inner')
    .argument('[command...]')
    .option('-i, --interactive', 'pass standard input to the command')
    .option('-t, --tty', 'give the command a terminal')
    .option('-e, --env <KEY=VALUE>', 'set a variable for the command', collectEnv, {})
    .option('-w, --workdir <dir>', 'where the command runs')
    .option('-u, --user <user[:group]>', 'whom the command runs as, by name or number')
    .option('--vm', 'run it in the guest itself rather than in its container')
    .option('--json', 'print one JSON document')
    .action((machine: string, words: string[], options: ExecOptions, command: Command) => {
      if (words.length === 0) command.error('error: there is no command; write: nestvm exec MACHINE -- COMMAND')
      return session(options.json === true, (own) => execIt(own, machine, words, options))
    })
}

export function shellCommand(): Command {
  return new Command('shell')
    .description('Open a shell in a running machine.')
    .argument('<machine>', 'its path, for example outer/inner')
    .action((machine: string) =>
      session(false, (own) =>
        execIt(own, machine, ['sh', '-l'], { interactive: true, tty: process.stdin.isTTY === true, env: {} }),
      ),
    )
}

async function execIt(own: Session, path: string, argv: string[], options: ExecOptions): Promise<number> {
  const { runningRecord } = await import('../stack/record.ts')
  const { attach, windowSize } = await import('./attach.ts')
  const { spawnInside } = await import('../stack/inside.ts')
  const record = await runningRecord(path)
  const tty = options.tty ? { ...windowSize(), term: process.env.TERM } : undefined
  const wanted = { argv, env: options.env, cwd: options.workdir, user: options.user }
  const streams = { tty, noInput: !options.interactive && !tty }
  const interactive = options.interactive === true
  const { unlessDead } = await import('../stack/watch.ts')
  const work = async () => {
    const program = await spawnInside(own.context, record, options.vm === true, wanted, streams)
    if (!options.json) return attach(program, own, { interactive, tty: tty !== undefined })
    const { collect } = await import('./collect.ts')
    const { printJson } = await import('./session.ts')
    const result = await collect(program, own, interactive)
    printJson({ machine: path, ...result })
    return result.exitStatus
  }
  return unlessDead(own.context, record, [], work())
}
