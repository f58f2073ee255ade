// What a view has to do with the notebook around it: it is saved with the view, and a page that is loaded anew shows what goes on. `../widgets.py` puts this
// before the views. Nothing of this exists outside of JupyterLab and Notebook 7.

const SAVES = Symbol.for("cc_executor.saves"); // on a notebook's context: every view has a module of its own
const SAVE_WAIT_MS = 20_000; // for the end of somebody else's save, which a dialog may hold up

/** Whether somebody saves a notebook now, and whether a view waits for the end of that. */
function savesOf(context) {
  if (!context[SAVES]) {
    const saves = (context[SAVES] = { isBusy: false, isAwaited: false, goOn: null, last: null });
    context.saveState?.connect((_, state) => {
      saves.isBusy = state === "started";
      if (!saves.isBusy) saves.goOn?.();
    });
  }
  return context[SAVES];
}

/** JupyterLab takes the first of two saves that overlap for a stranger's change of the file, and asks what is to be done. */
async function saveApart(context) {
  const saves = savesOf(context);
  if (saves.isAwaited) return; // the one that waits saves this view, too
  saves.isAwaited = true;
  await saves.last;
  if (saves.isBusy) await new Promise((done) => setTimeout((saves.goOn = done), SAVE_WAIT_MS));
  saves.isAwaited = false;
  saves.goOn = null;
  saves.last = saveFirst(context);
}

/** Save; who saves meanwhile (Ctrl+S, just after Shift+Enter) comes after it. The context is then as it was. */
async function saveFirst(context) {
  const { save } = context;
  const isOwn = Object.hasOwn(context, "save"); // JupyterLab's is not: its class has it
  const done = (async () => save.call(context))().catch(() => {});
  const later = async (...options) => {
    await Promise.race([done, new Promise((late) => setTimeout(late, SAVE_WAIT_MS))]);
    return save.apply(context, options);
  };
  context.save = later;
  await done;
  if (context.save !== later) return;
  if (isOwn) context.save = save;
  else delete context.save;
}

/**
 * A tab that is opened again finds the view in its notebook only if that was saved with it. Where several people edit one notebook
 * (jupyter-collaboration 5), its server saves it by itself, and JupyterLab takes what it wrote for a stranger's change.
 */
function saveOnce(model) {
  if (!model.get("save_on_start")) return;
  model.set("save_on_start", false);
  model.save_changes?.();
  const context = model.widget_manager?.context;
  const isOurs = !context?.model?.readOnly && !context?.model?.collaborative;
  const canBeWritten = context?.contentsModel?.writable !== false; // else JupyterLab would say at every run that it cannot
  if (typeof context?.save === "function" && isOurs && canBeWritten) saveApart(context);
}

const WIDGET_MIME = "application/vnd.jupyter.widget-view+json";
const LOOKED_OVER = Symbol.for("cc_executor.looked_over"); // as SAVES
const LOOKS = 10; // a second apart: a page may be slow
// A cell with these alone may be trusted whoever has written them (nbformat 5.11, sign.py, `_check_cell`). A notebook that was never saved here is not trusted.
const SAFE_OUTPUTS = ["stream", "error"];

/**
 * A page that is loaded anew waits 2 s for a widget that an output names. Where the kernel's answer comes at the very end of that, JupyterLab's widgets (5.0.16)
 * have the model and say for good that it was not found. Such an output is put in its own place once more. So is one that was saved when text stood in for the
 * view (../standin.py): the kernel exchanges what it has shown itself, which a page that was loaded since does not know any more.
 */
function initialize({ model }) {
  tell(model, { op: "here" }); // the kernel waits for this, and shows text where it does not come
  const manager = model.widget_manager;
  const context = manager?.context;
  if (!context?.model) return;
  addLost(model, context).catch(console.debug);
  if (context[LOOKED_OVER]) return;
  context[LOOKED_OVER] = true;
  let looks = LOOKS;
  const timer = setInterval(() => {
    looks -= 1;
    if (!looks) clearInterval(timer);
    const shown = [...document.querySelectorAll(".jp-OutputArea-output.jupyter-widgets")];
    const isUnfound = shown.some((node) => node.textContent.endsWith("model not found"));
    drawUnfound(manager, context.model, isUnfound).catch(console.debug);
  }, 1000);
}

/**
 * The view of what goes on, in a page that is loaded anew, where no output names it: the notebook could not be saved before. The kernel says where it was shown
 * (`place`, see ../live.py) to a page that fetches the model. A page that is there when the model is made is told nothing: its cell shows the view, or, in a
 * second tab, shows what that tab knows.
 */
async function addLost(model, context) {
  const place = JSON.parse(model.get("place") || "null");
  model.set("place", ""); // JupyterLab can save the states of widgets with a notebook, and this holds now
  if (!place || context.model.collaborative) return; // these outputs are everybody's
  await context.ready;
  const cells = [...context.model.cells];
  const names = ({ data, metadata }) => data?.[WIDGET_MIME]?.model_id === place.view || metadata?.cc_executor?.view === place.view;
  if (cells.some((cell) => outputsOf(cell).some(names))) return;
  const cell = cells.find(({ id }) => id === place.cell) ?? onlyOne(cells, place.code);
  if (!cell?.outputs) return;
  if (outputsOf(cell).every((output) => SAFE_OUTPUTS.includes(output.output_type))) cell.trusted = true; // else the words below the view are shown
  cell.outputs.add({ output_type: "display_data", data: place.data, metadata: place.metadata });
  model.set("save_on_start", place.save); // the page that was there has taken it back, and has not saved
  saveOnce(model);
}

/** A notebook of a format before 4.5 has no ids of cells, and every page makes up others. */
function onlyOne(cells, code) {
  const alike = cells.filter((cell) => code && cell.sharedModel.getSource() === code);
  return alike.length === 1 ? alike[0] : undefined;
}

function outputsOf({ outputs }) {
  return Array.from({ length: outputs?.length ?? 0 }, (_, index) => outputs.get(index).toJSON());
}

/** Has those views of ours drawn that are in a notebook, and have nothing that shows them; `isUnfound`: also where an output names them. */
async function drawUnfound(manager, notebook, isUnfound) {
  for (const { outputs } of notebook.cells) {
    for (let index = 0; index < (outputs?.length ?? 0); index += 1) {
      const output = outputs.get(index).toJSON();
      const named = output.data?.[WIDGET_MIME]?.model_id;
      const id = named ?? output.metadata?.cc_executor?.view;
      if (!id || (named && !isUnfound) || !manager.has_model(id)) continue;
      const found = await manager.get_model(id);
      const isOurs = `${found.get("_anywidget_id")}`.startsWith("cc_executor.");
      if (!isOurs || Object.keys(found.views || {}).length) continue;
      const view = { model_id: id, version_major: 2, version_minor: 0 };
      outputs.set(index, { ...output, data: { [WIDGET_MIME]: view, ...output.data } });
    }
  }
}
