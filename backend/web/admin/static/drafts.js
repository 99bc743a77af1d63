// Keeps what was typed into a form until the server has taken it, for example if the session had ended meanwhile.
// Passwords and what confirms a deletion are not kept. Only this tab knows the rest, and only until its user logs out.
"use strict";

{
  const TYPED = "textarea, select, input:not([type=hidden], [type=password], [name=typed])";
  // Forms with the same address differ in their hidden fields, such as the name of the user that they change.
  const ownOf = (form) => form.querySelectorAll("input[type=hidden]:not([name=csrf_token])");
  const keyOf = (form) => `draft ${form.action} ${[...ownOf(form)].map((field) => `${field.name}=${field.value}`)}`;
  const fieldsOf = (form) => [...form.elements].filter((field) => field.matches(TYPED));
  const valueOf = (field) => (field.type === "checkbox" ? field.checked : field.value);

  document.addEventListener("submit", ({ target: form }) => {
    if (form.matches("[action$='/login/out']")) forget();
    const isLogin = form.querySelector("[autocomplete=current-password]") !== null;
    const typed = fieldsOf(form).map((field) => [field.name, valueOf(field)]);
    if (form.method === "post" && !isLogin && typed.length) sessionStorage.setItem(keyOf(form), JSON.stringify(typed));
  });

  const forget = () => {
    for (const key of Object.keys(sessionStorage)) if (key.startsWith("draft ")) sessionStorage.removeItem(key);
  };

  const restore = (form) => {
    const draft = sessionStorage.getItem(keyOf(form));
    sessionStorage.removeItem(keyOf(form));
    const typed = new Map(JSON.parse(draft ?? "[]"));
    const lost = fieldsOf(form).filter((field) => typed.has(field.name) && typed.get(field.name) !== valueOf(field));
    for (const field of lost) {
      if (field.type === "checkbox") field.checked = typed.get(field.name);
      else field.value = typed.get(field.name);
    }
    if (!lost.length) return;
    const around = form.closest("details");
    if (around !== null) around.open = true;
    const said = document.createElement("p");
    said.className = "message";
    said.setAttribute("role", "status");
    said.textContent = "The form was not sent. It has again what you typed, except for passwords.";
    form.prepend(said);
  };

  if (document.querySelector(".message.good") !== null) forget();
  else for (const form of document.querySelectorAll("form[method=post]")) restore(form);
}
